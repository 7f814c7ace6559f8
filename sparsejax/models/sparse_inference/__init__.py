"""Sparse inference: FFNs that compute the neurons a predictor names (specs/sparse_inference.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.sparse_inference.config import CacheConfig, ModelConfig, SparsityConfig

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.cache_statistics import CacheStatistics as CacheStatistics
    from sparsejax.models.sparse_inference.calibrate import Calibration as Calibration
    from sparsejax.models.sparse_inference.calibrate import calibrate as calibrate
    from sparsejax.models.sparse_inference.coactivation import coactivation_order as coactivation_order
    from sparsejax.models.sparse_inference.compensation import Compensation as Compensation
    from sparsejax.models.sparse_inference.compensation import compensation_errors as compensation_errors
    from sparsejax.models.sparse_inference.compensation import fit_compensation as fit_compensation
    from sparsejax.models.sparse_inference.ffn import SparseFFN as SparseFFN
    from sparsejax.models.sparse_inference.ffn_hot import hot_cold_ffn as hot_cold_ffn
    from sparsejax.models.sparse_inference.ffn_hot import split_hot as split_hot
    from sparsejax.models.sparse_inference.ffn_paths import predicted_ffn as predicted_ffn
    from sparsejax.models.sparse_inference.ffn_permute import permute_blocks as permute_blocks
    from sparsejax.models.sparse_inference.ffn_permute import permute_ffn as permute_ffn
    from sparsejax.models.sparse_inference.ffn_permute import permute_predictor as permute_predictor
    from sparsejax.models.sparse_inference.ffn_plan import FFNPlan as FFNPlan
    from sparsejax.models.sparse_inference.hot_cold import NeuronCounts as NeuronCounts
    from sparsejax.models.sparse_inference.placement import Placement as Placement
    from sparsejax.models.sparse_inference.placement import place as place
    from sparsejax.models.sparse_inference.placement import read_activation_counts as read_activation_counts
    from sparsejax.models.sparse_inference.predictor import LowRankPredictor as LowRankPredictor
    from sparsejax.models.sparse_inference.predictor import MLPPredictor as MLPPredictor
    from sparsejax.models.sparse_inference.predictor_ahead import LookAhead as LookAhead
    from sparsejax.models.sparse_inference.predictor_exact import Dense as Dense
    from sparsejax.models.sparse_inference.predictor_exact import GateThreshold as GateThreshold
    from sparsejax.models.sparse_inference.predictor_exact import Oracle as Oracle
    from sparsejax.models.sparse_inference.selection import select as select
    from sparsejax.models.sparse_inference.selection import select_mask as select_mask
    from sparsejax.models.sparse_inference.statistics import PredictorStatistics as PredictorStatistics
    from sparsejax.models.sparse_inference.statistics import predictor_statistics as predictor_statistics
    from sparsejax.models.sparse_inference.store import NeuronStore as NeuronStore
    from sparsejax.models.sparse_inference.store_ffn import StoredFFN as StoredFFN
    from sparsejax.models.sparse_inference.store_file import NeuronFile as NeuronFile
    from sparsejax.models.sparse_inference.store_file import write_neurons as write_neurons

_HOMES = {
    "CacheStatistics": "cache_statistics",
    "Calibration": "calibrate",
    "Compensation": "compensation",
    "Dense": "predictor_exact",
    "FFNPlan": "ffn_plan",
    "GateThreshold": "predictor_exact",
    "LookAhead": "predictor_ahead",
    "LowRankPredictor": "predictor",
    "MLPPredictor": "predictor",
    "NeuronCounts": "hot_cold",
    "NeuronFile": "store_file",
    "NeuronStore": "store",
    "Oracle": "predictor_exact",
    "Placement": "placement",
    "PredictorStatistics": "statistics",
    "SparseFFN": "ffn",
    "StoredFFN": "store_ffn",
    "calibrate": "calibrate",
    "coactivation_order": "coactivation",
    "compensation_errors": "compensation",
    "fit_compensation": "compensation",
    "hot_cold_ffn": "ffn_hot",
    "permute_blocks": "ffn_permute",
    "permute_ffn": "ffn_permute",
    "permute_predictor": "ffn_permute",
    "place": "placement",
    "predicted_ffn": "ffn_paths",
    "predictor_statistics": "statistics",
    "read_activation_counts": "placement",
    "select": "selection",
    "select_mask": "selection",
    "split_hot": "ffn_hot",
    "write_neurons": "store_file",
}
"""Imported when first asked for: reading a file needs no network, and running one no calibration."""

__all__ = [
    "CacheConfig",
    "CacheStatistics",
    "Calibration",
    "Compensation",
    "Dense",
    "FFNPlan",
    "GateThreshold",
    "LookAhead",
    "LowRankPredictor",
    "MLPPredictor",
    "ModelConfig",
    "NeuronCounts",
    "NeuronFile",
    "NeuronStore",
    "Oracle",
    "Placement",
    "PredictorStatistics",
    "SparseFFN",
    "SparsityConfig",
    "StoredFFN",
    "calibrate",
    "coactivation_order",
    "compensation_errors",
    "fit_compensation",
    "hot_cold_ffn",
    "permute_blocks",
    "permute_ffn",
    "permute_predictor",
    "place",
    "predicted_ffn",
    "predictor_statistics",
    "read_activation_counts",
    "select",
    "select_mask",
    "split_hot",
    "write_neurons",
]


def __getattr__(name: str) -> Any:
    """Import the names that are used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
