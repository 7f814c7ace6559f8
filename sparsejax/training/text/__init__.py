"""Local text as batches of tokens: files, tokenizers, packing into windows, and a grain pipeline."""
