"""Ultra-sparse nets: neurons that read K inputs through an index table (specs/ultra_sparse.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig, dense, masked, sparse
from sparsejax.models.ultra_sparse.evolve import (
    anneal,
    evolve_weights,
    genetic,
    gsa,
    hill_climb,
    objective,
    polish,
    sparse_fit,
    tempering,
)
from sparsejax.models.ultra_sparse.export_c import export_c
from sparsejax.models.ultra_sparse.export_numpy import export_numpy
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
from sparsejax.models.ultra_sparse.problems import PROBLEMS, Problem, make_problem
from sparsejax.models.ultra_sparse.quantize import quantize, quantize_weights, with_sign_hidden
from sparsejax.models.ultra_sparse.report import Report, evaluate_seeds, tanh_head_floor

if TYPE_CHECKING:
    from sparsejax.models.ultra_sparse.estimator import TableWarning as TableWarning
    from sparsejax.models.ultra_sparse.estimator import UltraSparseClassifier as UltraSparseClassifier
    from sparsejax.models.ultra_sparse.estimator import UltraSparseRegressor as UltraSparseRegressor

_ESTIMATORS = ("TableWarning", "UltraSparseClassifier", "UltraSparseRegressor")

__all__ = [
    "PROBLEMS",
    "DenseNet",
    "Layer",
    "NetworkStats",
    "Problem",
    "Report",
    "SelectionStats",
    "TableWarning",
    "UltraSparseClassifier",
    "UltraSparseConfig",
    "UltraSparseNet",
    "UltraSparseRegressor",
    "anneal",
    "compile_network",
    "dense",
    "evaluate_seeds",
    "evolve_weights",
    "expand_input",
    "export_c",
    "export_numpy",
    "fuse",
    "genetic",
    "gsa",
    "hill_climb",
    "make_problem",
    "masked",
    "network_stats",
    "objective",
    "polish",
    "quantize",
    "quantize_weights",
    "selection_stats",
    "sparse",
    "sparse_fit",
    "storage_bits",
    "tanh_head_floor",
    "tempering",
    "with_sign_hidden",
]


def __getattr__(name: str) -> Any:
    """Import the estimators, which need scikit-learn, when they are first used."""
    if name in _ESTIMATORS:
        return getattr(importlib.import_module(f"{__name__}.estimator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
