"""The model families; each registers its file layouts when it is first asked for."""

import importlib
from types import ModuleType

from sparsejax.checkpoint.registry import declare

FAMILIES = ("ultra_sparse", "ten", "sprout", "force_field", "sparse_inference")

for _family in FAMILIES:
    declare(f"{__name__}.{_family}.convert")


def __getattr__(name: str) -> ModuleType:
    """Import a family when it is first used."""
    if name in FAMILIES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
