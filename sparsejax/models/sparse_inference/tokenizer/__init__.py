"""Text to token ids and back, by what the metadata of a GGUF file say."""
