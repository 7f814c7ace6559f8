"""Few tokens: only the rows of the selected neurons are read.

The second product is written as a sum over rows, each multiplied by its neuron's value. On CPU that fuses
with the reading of the rows, adds whole rows as vectors and needs no copy; as a matrix product it took up to
twice as long. The first product, which sums along rows, must stay a matrix product: there the same form
is slow.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.sparse_ffn.block import Plan, block_rows
from sparsejax.ops.sparse_ffn.reference import hidden_values
from sparsejax.ops.sparse_ffn.weights import FFNWeights, map_neurons

MOST_UNROLLED = 64
"""Most blocks that `gather_blocks` takes: compile time grows with them."""


def gather_neurons(flat: Array, weights: FFNWeights, indices: Array, activation: str) -> Array:
    """The outputs (n, d), without bias, of each token's own neurons, in float32 at least.

    Args:
      flat: (n, d).
      weights: of f neurons.
      indices: int32 (n, k), ascending.
      activation: a name in `ACTIVATIONS`.
    """

    def one(row: Array, mine: Array) -> Array:
        part = map_neurons(lambda rows: rows.at[mine].get(mode="clip", indices_are_sorted=True), weights)
        return _row_sum(hidden_values(row[None], part, None, activation)[0], part.w_out)

    return _each(one, flat, indices)


def gather_blocks(flat: Array, weights: FFNWeights, blocks: Array, plan: Plan) -> Array:
    """The outputs (n, d), without bias, of each token's blocks, in float32 at least.

    The blocks are unrolled: on CPU they then run side by side, and a compiled loop over them took twice as
    long.

    Args:
      flat: (n, d).
      weights: of f neurons.
      blocks: int32 (n, k), k > 0.
      plan: the blocks' size and the activation.
    """

    def one(row: Array, mine: Array) -> Array:
        parts = [block_rows(plan, weights, mine[place]) for place in range(mine.shape[0])]
        hidden = [hidden_values(row[None], *part, plan.activation)[0] for part in parts]
        # Joined, or the compiler works out every activation again for each column of the second product.
        values = jnp.split(jnp.concatenate(hidden), len(hidden))
        outputs = [_row_sum(value, part.w_out) for value, (part, _) in zip(values, parts, strict=True)]
        return jnp.stack(outputs).sum(axis=0)

    return _each(one, flat, blocks)


def _row_sum(values: Array, rows: Array) -> Array:
    rounded = values.astype(rows.dtype).astype(values.dtype)
    return (rounded[:, None] * rows.astype(values.dtype)).sum(axis=0)


def _each(one: Callable[[Array, Array], Array], flat: Array, chosen: Array) -> Array:
    """Token by token; a single one needs no loop."""
    if flat.shape[0] == 1:
        return one(flat[0], chosen[0])[None]
    return jax.lax.map(lambda token: one(*token), (flat, chosen))
