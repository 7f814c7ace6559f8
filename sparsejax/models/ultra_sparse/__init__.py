"""Ultra-sparse nets: neurons that read K inputs through an index table (specs/ultra_sparse.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig, dense, masked, sparse
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
from sparsejax.models.ultra_sparse.quantize import quantize, quantize_weights, with_sign_hidden

if TYPE_CHECKING:
    from sparsejax.models.ultra_sparse.estimator import TableWarning as TableWarning
    from sparsejax.models.ultra_sparse.estimator import UltraSparseClassifier as UltraSparseClassifier
    from sparsejax.models.ultra_sparse.estimator import UltraSparseRegressor as UltraSparseRegressor
    from sparsejax.models.ultra_sparse.evolve import anneal as anneal
    from sparsejax.models.ultra_sparse.evolve import evolve_weights as evolve_weights
    from sparsejax.models.ultra_sparse.evolve import genetic as genetic
    from sparsejax.models.ultra_sparse.evolve import gsa as gsa
    from sparsejax.models.ultra_sparse.evolve import hill_climb as hill_climb
    from sparsejax.models.ultra_sparse.evolve import objective as objective
    from sparsejax.models.ultra_sparse.evolve import polish as polish
    from sparsejax.models.ultra_sparse.evolve import sparse_fit as sparse_fit
    from sparsejax.models.ultra_sparse.evolve import tempering as tempering
    from sparsejax.models.ultra_sparse.problems import PROBLEMS as PROBLEMS
    from sparsejax.models.ultra_sparse.problems import Problem as Problem
    from sparsejax.models.ultra_sparse.problems import make_problem as make_problem
    from sparsejax.models.ultra_sparse.report import Report as Report
    from sparsejax.models.ultra_sparse.report import evaluate_seeds as evaluate_seeds
    from sparsejax.models.ultra_sparse.report import tanh_head_floor as tanh_head_floor

_HOMES = {
    "TableWarning": "estimator",
    "UltraSparseClassifier": "estimator",
    "UltraSparseRegressor": "estimator",
    "anneal": "evolve",
    "evolve_weights": "evolve",
    "genetic": "evolve",
    "gsa": "evolve",
    "hill_climb": "evolve",
    "objective": "evolve",
    "polish": "evolve",
    "sparse_fit": "evolve",
    "tempering": "evolve",
    "PROBLEMS": "problems",
    "Problem": "problems",
    "make_problem": "problems",
    "Report": "report",
    "evaluate_seeds": "report",
    "tanh_head_floor": "report",
}
"""Training, imported when first asked for: running a net needs no optimiser, and no scikit-learn."""

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
    """Import the names of training when they are first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
