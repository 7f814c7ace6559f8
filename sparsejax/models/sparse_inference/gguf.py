"""GGUF files, whose reader and writer belong to all checkpoints: re-exported where users look for them."""

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf import GGUFFile, GGUFTensor, read_gguf, write_gguf

__all__ = ["GGUFError", "GGUFFile", "GGUFTensor", "read_gguf", "write_gguf"]
