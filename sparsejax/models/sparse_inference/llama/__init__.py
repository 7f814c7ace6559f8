"""The Llama-architecture decoder: its parts, its files, and text through it."""
