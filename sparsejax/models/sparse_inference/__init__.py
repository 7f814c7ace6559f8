"""Sparse inference: FFNs that compute the neurons a predictor names (specs/sparse_inference.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.sparse_inference.config import CacheConfig, ModelConfig, SparsityConfig

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.cache_statistics import CacheStatistics as CacheStatistics
    from sparsejax.models.sparse_inference.calibrate import Calibration as Calibration
    from sparsejax.models.sparse_inference.calibrate import calibrate as calibrate
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
    "Dense": "predictor_exact",
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
    "StoredFFN": "store_ffn",
    "calibrate": "calibrate",
    "place": "placement",
    "predictor_statistics": "statistics",
    "read_activation_counts": "placement",
    "select": "selection",
    "select_mask": "selection",
    "write_neurons": "store_file",
}
"""Imported when first asked for: reading a file needs no network, and running one no calibration."""

__all__ = [
    "CacheConfig",
    "CacheStatistics",
    "Calibration",
    "Dense",
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
    "SparsityConfig",
    "StoredFFN",
    "calibrate",
    "place",
    "predictor_statistics",
    "read_activation_counts",
    "select",
    "select_mask",
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
