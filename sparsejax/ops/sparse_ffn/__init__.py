"""Feed-forward parts of which each token uses only some neurons."""

from sparsejax.ops.sparse_ffn.api import choose_path, sparse_ffn
from sparsejax.ops.sparse_ffn.reference import dense_ffn, masked_ffn
from sparsejax.ops.sparse_ffn.selection import block_count, top_k_indices, top_k_mask
from sparsejax.ops.sparse_ffn.weights import ACTIVATIONS, FFNWeights

__all__ = [
    "ACTIVATIONS",
    "FFNWeights",
    "block_count",
    "choose_path",
    "dense_ffn",
    "masked_ffn",
    "sparse_ffn",
    "top_k_indices",
    "top_k_mask",
]
