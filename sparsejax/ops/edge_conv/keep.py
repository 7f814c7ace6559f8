"""Results that XLA on CPU keeps instead of computing them anew in every loop that reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends

Operand = TypeVar("Operand")
Result = TypeVar("Result")


def kept(compute: Callable[[Operand], Result], operand: Operand, witness: Array) -> Result:
    """``compute(operand)`` in a branch of its own, where fusion does not reach.

    Fused into a loop over edges, what belongs to a node would be computed once per edge, and a table read
    once per direction. No barrier of XLA's stops that on CPU; other platforms need none of this.

    Args:
      compute: pure.
      operand: any pytree.
      witness: any array of numbers that are not negative; XLA must not know that.

    Example:
      >>> kept(jnp.sin, jnp.zeros(2), jnp.ones(1)).tolist()
      [0.0, 0.0]
    """
    if backends.platform() != "cpu" or not witness.size:
        return compute(operand)
    like = jax.eval_shape(compute, operand)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    always = ~(witness.reshape(-1)[0] < 0)  # true of NaN, too
    result: Result = jax.lax.cond(always, compute, lambda _: zeros, operand)
    return result
