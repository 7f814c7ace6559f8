"""The dtype that numbers are summed in."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
from jax.typing import DTypeLike


def accumulator(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype of sums of numbers of these: float32 at least, float64 where one of them is.

    Args:
      dtypes: of the factors or terms.

    Example:
      >>> accumulator(jnp.bfloat16, jnp.float16), accumulator("float64")
      (dtype('float32'), dtype('float64'))
    """
    wide: jnp.dtype = reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))
    return wide
