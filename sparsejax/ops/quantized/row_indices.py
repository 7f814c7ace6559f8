"""Indices of rows that a caller asks for: checked where they are known, NaN rows where they are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike


def checked_indices(indices: ArrayLike, count: int) -> Array:
    """The indices as an array.

    Args:
      indices: integers of any shape.
      count: rows that there are.

    Raises:
      IndexError: one, not traced, is negative or not below ``count``.
      TypeError: they are not integers.

    Example:
      >>> checked_indices([0, 5], 4)
      Traceback (most recent call last):
      IndexError: row indices 0 to 5 are not all in 0 to 3
    """
    if isinstance(indices, jax.core.Tracer):
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise TypeError(f"row indices must be integers, not {indices.dtype}")
        return indices
    known = np.asarray(indices)
    if known.size and known.dtype.kind not in "iu":
        raise TypeError(f"row indices must be integers, not {known.dtype}")
    if known.size and not (0 <= known.min() and known.max() < count):
        raise IndexError(f"row indices {known.min()} to {known.max()} are not all in 0 to {count - 1}")
    return jnp.asarray(known, jnp.int32)


def fill_outside(rows: Array, indices: Array, count: int) -> Array:
    """NaN in the rows whose index is out of range.

    Args:
      rows: (*b, c).
      indices: (*b).
      count: rows that there are.

    Example:
      >>> fill_outside(jnp.ones((2, 1)), jnp.array([0, 7]), 4).tolist()
      [[1.0], [nan]]
    """
    inside = (indices >= 0) & (indices < count)
    return jnp.where(inside[..., None], rows, jnp.nan)
