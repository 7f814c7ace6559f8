"""Feed-forward parts of which each token uses only some neurons."""

from sparsejax.ops.sparse_ffn.api import check_weights, sparse_ffn
from sparsejax.ops.sparse_ffn.choose import choose_path
from sparsejax.ops.sparse_ffn.compact import mask_indices
from sparsejax.ops.sparse_ffn.listed import listed_ffn, own_outputs, shared_outputs
from sparsejax.ops.sparse_ffn.reference import dense_ffn, hidden_values, masked_ffn, with_bias
from sparsejax.ops.sparse_ffn.selection import block_count, block_neurons, top_k_indices, top_k_mask
from sparsejax.ops.sparse_ffn.weights import (
    ACTIVATIONS,
    GATED_ACTIVATIONS,
    FFNWeights,
    activated,
    check_activation,
    check_floating,
    map_neurons,
)

__all__ = [
    "ACTIVATIONS",
    "GATED_ACTIVATIONS",
    "FFNWeights",
    "activated",
    "block_count",
    "block_neurons",
    "check_activation",
    "check_floating",
    "check_weights",
    "choose_path",
    "dense_ffn",
    "hidden_values",
    "listed_ffn",
    "map_neurons",
    "mask_indices",
    "masked_ffn",
    "own_outputs",
    "shared_outputs",
    "sparse_ffn",
    "top_k_indices",
    "top_k_mask",
    "with_bias",
]
