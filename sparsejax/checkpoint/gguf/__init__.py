"""GGUF, the container of ggml's models: read safely, written whole.

Source: the GGUF specification (ggml/docs/gguf.md), specs/sparse_inference.md section 6.
"""

from sparsejax.checkpoint.gguf.gguf_file import GGUFFile
from sparsejax.checkpoint.gguf.reader import is_gguf, read_gguf
from sparsejax.checkpoint.gguf.string_array import StringArray
from sparsejax.checkpoint.gguf.tensor import GGUFTensor
from sparsejax.checkpoint.gguf.writer import write_gguf

__all__ = ["GGUFFile", "GGUFTensor", "StringArray", "is_gguf", "read_gguf", "write_gguf"]
