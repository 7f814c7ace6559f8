"""A message-passing force field: energies, forces, stress, dynamics, distillation (specs/force_field.md)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.model import StudentForceField
from sparsejax.models.force_field.potential import ForceField, Prediction

if TYPE_CHECKING:
    from sparsejax.models.force_field.dataset import ForceFieldDataset as ForceFieldDataset
    from sparsejax.models.force_field.dataset import LabelledStructure as LabelledStructure
    from sparsejax.models.force_field.dataset_sources import write_dataset as write_dataset
    from sparsejax.models.force_field.labels import label_dataset as label_dataset
    from sparsejax.models.force_field.onnx_file import export_onnx as export_onnx
    from sparsejax.models.force_field.stablehlo_file import export_stablehlo as export_stablehlo

_HOMES = {
    "ForceFieldDataset": "dataset",
    "LabelledStructure": "dataset",
    "export_onnx": "onnx_file",
    "export_stablehlo": "stablehlo_file",
    "label_dataset": "labels",
    "write_dataset": "dataset_sources",
}
"""Data sets, labels and exports, imported when first asked for: predictions need none of them."""

__all__ = [
    "ForceField",
    "ForceFieldConfig",
    "ForceFieldDataset",
    "LabelledStructure",
    "Prediction",
    "StudentForceField",
    "export_onnx",
    "export_stablehlo",
    "label_dataset",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
