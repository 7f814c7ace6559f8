"""Sparse and sub-quadratic model families in JAX, with torch-free import of the original weights.

>>> import sparsejax as sj
>>> ck = sj.load("checkpoints/ultra_sparse_sine.pt")
>>> ck.kind
'ultra_sparse'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsejax import models as models  # declares the families; imports none of them
from sparsejax.version import __version__ as __version__

if TYPE_CHECKING:
    from sparsejax.checkpoint.checkpoint import Checkpoint as Checkpoint
    from sparsejax.checkpoint.errors import CheckpointError as CheckpointError
    from sparsejax.checkpoint.inspection import Report as Report
    from sparsejax.checkpoint.inspection import inspect as inspect
    from sparsejax.checkpoint.load import load as load
    from sparsejax.checkpoint.save import export_pt as export_pt
    from sparsejax.checkpoint.save import save as save

_HOMES = {
    "Checkpoint": "checkpoint.checkpoint",
    "CheckpointError": "checkpoint.errors",
    "Report": "checkpoint.inspection",
    "inspect": "checkpoint.inspection",
    "load": "checkpoint.load",
    "save": "checkpoint.save",
    "export_pt": "checkpoint.save",
}
_SUBPACKAGES = ("bench", "checkpoint", "ops", "plots", "training", "typing")

__all__ = ["Checkpoint", "CheckpointError", "Report", "export_pt", "inspect", "load", "models", "save"]


def __getattr__(name: str) -> Any:
    """Import public names and subpackages when they are first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"sparsejax.{_HOMES[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"sparsejax.{name}")
    raise AttributeError(f"module 'sparsejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names."""
    return sorted({*__all__, *_SUBPACKAGES, "__version__"})
