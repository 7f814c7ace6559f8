"""Names that a family takes as overrides of `load` and options of `Checkpoint.apply`; others are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sparsejax.checkpoint.errors import AmbiguousVariantError, shown

_SHOWN = 10


def check_overrides(overrides: Iterable[str], known: Sequence[str]) -> None:
    """Refuse overrides that a layout does not know.

    Args:
      overrides: names given.
      known: names that the layout takes; none where its files tell everything.

    Raises:
      AmbiguousVariantError: one is unknown.

    Example:
      >>> check_overrides({"cutoff": 5.0}, ("cutoff", "species"))
    """
    if unknown := [name for name in overrides if name not in known]:
        takes = f"it takes {shown(known, _SHOWN)}" if known else "the file tells everything itself"
        raise AmbiguousVariantError(f"overrides has no {shown(unknown)}; {takes}", known)


def check_options(options: Iterable[str], known: Sequence[str]) -> None:
    """Refuse options that a model's call does not know.

    Args:
      options: names given.
      known: names that the call takes.

    Raises:
      ValueError: one is unknown.

    Example:
      >>> check_options({"top_k": 3}, ("top_k", "path"))
    """
    if unknown := sorted(name for name in options if name not in known):
        raise ValueError(f"apply has no option {shown(unknown)}; it takes {shown(known, _SHOWN) or 'none'}")


def check_dropout_key(drops_out: Any, has_key: bool = False) -> None:
    """Refuse a training call without the key that dropout draws from; `Checkpoint.apply` takes none.

    Args:
      drops_out: whether the call drops out at random.
      has_key: whether it was given a key.

    Raises:
      ValueError: it drops out and has none.

    Example:
      >>> check_dropout_key(drops_out=False)
    """
    if drops_out and not has_key:
        raise ValueError(
            'train=True drops out at random and needs a key: use model.apply(..., rngs={"dropout": key})'
        )
