"""Values that are written to memory before they are used, where XLA for CPU would work them out again.

It sees through barriers, but not into a branch. The branches here change nothing, which the compiler cannot
know.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends


def kept(x: Array) -> Array:
    """``x`` as it is.

    Otherwise what ``x`` comes from, say an activation, is worked out anew for each tile, and a sum of sums
    becomes one long one.

    Args:
      x: floating point, not empty.
    """
    if backends.platform() != "cpu":
        return x
    found: Array = jax.lax.cond(
        jnp.isnan(_first(x)), lambda x: jnp.where(jnp.isnan(x), jnp.nan, x), lambda x: x, x
    )
    return found


def kept_tiles(tiles: Array, count: int) -> Array:
    """Tiles to be taken, which would be chosen anew for each number that is read.

    Args:
      tiles: int32, not empty; those that are not 0 to ``count`` - 1 stand for none.
      count: tiles that there are.
    """
    if backends.platform() != "cpu":
        return tiles
    found: Array = jax.lax.cond(_first(tiles) < 0, lambda x: jnp.clip(x, -1, count), lambda x: x, tiles)
    return found


def _first(x: Array) -> Array:
    return x[(0,) * x.ndim]
