"""Sparse inference: FFNs that compute the neurons a predictor names (specs/sparse_inference.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.sparse_inference.config import CacheConfig, ModelConfig, SparsityConfig

if TYPE_CHECKING:
    from sparsejax.models.sparse_inference.calibrate import Calibration as Calibration
    from sparsejax.models.sparse_inference.calibrate import calibrate as calibrate
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

_HOMES = {
    "Calibration": "calibrate",
    "Dense": "predictor_exact",
    "GateThreshold": "predictor_exact",
    "LookAhead": "predictor_ahead",
    "LowRankPredictor": "predictor",
    "MLPPredictor": "predictor",
    "Oracle": "predictor_exact",
    "PredictorStatistics": "statistics",
    "calibrate": "calibrate",
    "predictor_statistics": "statistics",
    "select": "selection",
    "select_mask": "selection",
}
"""Imported when first asked for: reading a file needs no network, and running one no calibration."""

__all__ = [
    "CacheConfig",
    "Calibration",
    "Dense",
    "GateThreshold",
    "LookAhead",
    "LowRankPredictor",
    "MLPPredictor",
    "ModelConfig",
    "Oracle",
    "PredictorStatistics",
    "SparsityConfig",
    "calibrate",
    "predictor_statistics",
    "select",
    "select_mask",
]


def __getattr__(name: str) -> Any:
    """Import the names that are used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
