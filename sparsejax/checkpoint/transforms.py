"""Array transforms that conversion rules are made of: each one runs forward and backward, bit for bit.

A transform maps a tuple of source arrays to a tuple of target arrays. Forward transforms return views
where NumPy can, so that a memory-mapped file is copied once, at the very end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Transform:
    """A reversible map between tuples of arrays.

    Attributes:
      name: shown in errors.
      forward: source arrays to target arrays.
      backward: target arrays to source arrays, the exact inverse of ``forward``.
    """

    name: str
    forward: Callable[[Arrays], Arrays]
    backward: Callable[[Arrays], Arrays]


identity = Transform("identity", lambda arrays: arrays, lambda arrays: arrays)
"""Source and target are the same array."""

transpose = Transform(
    "transpose",
    lambda arrays: tuple(array.swapaxes(-1, -2) for array in arrays),
    lambda arrays: tuple(array.swapaxes(-1, -2) for array in arrays),
)
"""The last two axes change places: torch's (out, in) to a flax kernel's (in, out)."""


def split(parts: int | Sequence[int], axis: int = 0) -> Transform:
    """One source cut into several targets along ``axis``.

    Args:
      parts: number of equal parts, or the size of each part.
      axis: axis to cut.

    Example:
      >>> q, k, v = split(3).forward((np.arange(6),))
      >>> k
      array([2, 3])
    """

    def cut(arrays: Arrays) -> Arrays:
        (array,) = arrays
        at = parts if isinstance(parts, int) else list(np.cumsum(parts)[:-1])
        return tuple(np.split(array, at, axis=axis))

    return Transform("split", cut, lambda arrays: (np.concatenate(arrays, axis=axis),))


def merge(parts: int | Sequence[int], axis: int = 0) -> Transform:
    """Several sources joined into one target along ``axis``: the reverse of `split`."""
    reverse = split(parts, axis)
    return Transform("merge", reverse.backward, reverse.forward)


def stored_as(dtype: str) -> Transform:
    """Integers that the file holds as ``dtype``; written as that again, whatever JAX made of them.

    Forward they stay as they are, a view: loading casts to the model's integer type on the copy that it
    makes anyway, and refuses values that do not fit.

    Example:
      >>> stored_as("int64").backward((np.array([7], np.int32),))[0].dtype
      dtype('int64')
    """

    def check(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "iu":
            raise CorruptFileError(f"holds {array.dtype} values, not integers")
        return array

    return Transform(
        f"stored as {dtype}",
        lambda arrays: tuple(check(array) for array in arrays),
        lambda arrays: tuple(check(array).astype(dtype) for array in arrays),
    )


def chain(first: Transform, *others: Transform) -> Transform:
    """The transforms one after another."""
    steps = (first, *others)

    def forward(arrays: Arrays) -> Arrays:
        for step in steps:
            arrays = step.forward(arrays)
        return arrays

    def backward(arrays: Arrays) -> Arrays:
        for step in reversed(steps):
            arrays = step.backward(arrays)
        return arrays

    return Transform(" then ".join(step.name for step in steps), forward, backward)
