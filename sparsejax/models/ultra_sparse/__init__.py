"""Ultra-sparse nets: neurons that read K inputs through an index table (specs/ultra_sparse.md)."""

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig, dense, masked, sparse
from sparsejax.models.ultra_sparse.features import expand_input
from sparsejax.models.ultra_sparse.fuse import compile_network, fuse
from sparsejax.models.ultra_sparse.metrics import (
    NetworkStats,
    SelectionStats,
    network_stats,
    selection_stats,
    storage_bits,
)
from sparsejax.models.ultra_sparse.model import DenseNet, UltraSparseNet
from sparsejax.models.ultra_sparse.quantize import quantize, quantize_weights, with_sign_hidden

__all__ = [
    "DenseNet",
    "Layer",
    "NetworkStats",
    "SelectionStats",
    "UltraSparseConfig",
    "UltraSparseNet",
    "compile_network",
    "dense",
    "expand_input",
    "fuse",
    "masked",
    "network_stats",
    "quantize",
    "quantize_weights",
    "selection_stats",
    "sparse",
    "storage_bits",
    "with_sign_hidden",
]
