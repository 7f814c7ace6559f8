"""The arrays of a reference file by the names that stand for one thing, such as the tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.checkpoint.errors import MissingKeyError, shown

TOKEN_NAMES = ("ids", "input_ids", "tokens")
"""Names of the tokens that a language model reads."""

FEATURE_NAMES = ("x", "inputs", "features")
"""Names of the numbers that a part of a network reads."""


def named(arrays: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The array that has one of several names, the first of them that is there.

    Args:
      arrays: of a reference file.
      names: that the array may have.

    Raises:
      MissingKeyError: none of them is there.

    Example:
      >>> named({"tokens": [3], "logits": [0.5]}, TOKEN_NAMES)
      [3]
    """
    name = next((name for name in names if name in arrays), None)
    if name is None:
        raise MissingKeyError(f"an array named one of {shown(names)} is needed; found {shown(arrays)}")
    return arrays[name]
