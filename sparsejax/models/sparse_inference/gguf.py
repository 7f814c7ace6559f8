"""GGUF files and quantised tensors, which belong to all families: re-exported where users look for them."""

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf import GGUFFile, GGUFTensor, read_gguf, write_gguf
from sparsejax.ops.quantized import AffineTensor, QuantizedTensor

__all__ = [
    "AffineTensor",
    "GGUFError",
    "GGUFFile",
    "GGUFTensor",
    "QuantizedTensor",
    "read_gguf",
    "write_gguf",
]
