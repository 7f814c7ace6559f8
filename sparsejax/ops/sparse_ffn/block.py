"""Only the selected blocks of neurons: a loop over tiles of one block and the tokens that use it.

Work and memory traffic follow the selection: two products per tile, nothing for blocks that nobody uses, and
no token is dropped, since a block with many tokens has many tiles. The gradient is the same loop once more.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.sparse_ffn.reference import neuron_outputs
from sparsejax.ops.sparse_ffn.tiles import Tiles, tiles_of
from sparsejax.ops.sparse_ffn.weights import FFNWeights, map_neurons

STEP, MOST_ROWS = 16, 1088
"""Of a tile: rows are a multiple of the first, and no more than the second, since more no longer stay in the
cache."""

SPARE = 16
"""A tile has room for a sixteenth more tokens than an even use of the blocks would bring: a block that a few
more use does not need another tile."""

SIDE_BY_SIDE = 256
"""Fewest rows of tiles that go in pairs on CPU, each with a sum of its own, so that what runs on one thread,
as the addition to the sum does, runs beside the other tile's work. 4,096 tokens with 16 of 32 blocks take 107
ms by tiles of 1,024 rows one by one, 90 by pairs of 544 and 82 by pairs of 1,088; with 8 of 32 blocks 63 and,
by pairs of 1,088, 43."""


class Plan(NamedTuple):
    """What is static: neurons of a block, and the activation's name."""

    block_size: int
    activation: str


def block_ffn(flat: Array, weights: FFNWeights, mask: Array, most: int, plan: Plan) -> Array:
    """The outputs (n, o), without bias, of the blocks that each token uses.

    Args:
      flat: (n, d), n > 0.
      weights: of f neurons; the last block may be shorter.
      mask: bool (n, blocks).
      most: blocks that a token uses at most.
      plan: the blocks' size and the activation.

    Source: MegaBlocks (Gale et al. 2022), whose experts are blocks of neurons here.
    """
    tiles = tiles_of(mask, rows=tile_rows(*mask.shape, most=most), most=most)
    return tile_outputs(plan, flat, weights, tiles)


def tile_rows(count: int, blocks: int, *, most: int) -> int:
    """Tokens of a tile: a little more than use a block on average, or than a whole part of them.

    Example:
      >>> tile_rows(128, 32, most=3), tile_rows(4096, 32, most=16)
      (16, 1088)
    """
    average = -(-count * min(most, blocks) // blocks)
    wanted = average + average // SPARE
    share = -(-wanted // -(-wanted // MOST_ROWS))
    return max(1, -(-share // STEP)) * STEP


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tile_outputs(plan: Plan, flat: Array, weights: FFNWeights, tiles: Tiles) -> Array:
    """The sum (n, o) over the tiles, in float32 at least."""
    lanes = 2 if backends.platform() == "cpu" and tiles.tokens.shape[1] >= SIDE_BY_SIDE else 1

    def add(number: Array, outputs: Array) -> Array:
        tokens, block = tiles.tokens[number], tiles.blocks[number]
        return _added(outputs, tokens, block_outputs(plan, _rows(flat, tokens), weights, block))

    def step(number: Array, sums: list[Array]) -> list[Array]:
        return [add(lanes * number + lane, outputs) for lane, outputs in enumerate(sums)]

    zeros = jnp.zeros((flat.shape[0], weights.w_out.shape[1]), accumulator(flat.dtype, weights.w_in.dtype))
    first, *others = jax.lax.fori_loop(0, -(-tiles.used // lanes), step, [zeros] * lanes)
    outputs: Array = sum(others, start=first)
    return outputs


def _forward(plan: Plan, flat: Array, weights: FFNWeights, tiles: Tiles) -> tuple[Array, Any]:
    return tile_outputs(plan, flat, weights, tiles), (flat, weights, tiles)


def tile_gradient(plan: Plan, kept: Any, cotangent: Array) -> tuple[Array, FFNWeights, None]:
    """The gradients of the inputs and the weights, computed anew tile by tile.

    Args:
      plan: as in `tile_outputs`.
      kept: its other arguments.
      cotangent: (n, o) of its result.
    """
    flat, weights, tiles = kept
    wide = accumulator(flat.dtype, weights.w_in.dtype)

    def add(number: Array, sums: tuple[Array, FFNWeights]) -> tuple[Array, FFNWeights]:
        tokens, block = tiles.tokens[number], tiles.blocks[number]
        part, inside = block_rows(plan, weights, block)

        def tile(rows: Array, part: FFNWeights) -> Array:
            return neuron_outputs(rows, part, inside, plan.activation)

        _, pull_back = jax.vjp(tile, _rows(flat, tokens), part)
        of_rows, of_part = pull_back(cotangent.at[tokens].get(mode="fill", fill_value=0))
        start = _start(plan, weights, block)

        def added(total: Array, here: Array) -> Array:
            before = jax.lax.dynamic_slice_in_dim(total, start, here.shape[0])
            return jax.lax.dynamic_update_slice_in_dim(total, before + here.astype(wide), start, 0)

        of_weights = jax.tree.map(added, sums[1], of_part)
        return _added(sums[0], tokens, of_rows.astype(wide)), of_weights

    zeros = jnp.zeros(flat.shape, wide), map_neurons(partial(jnp.zeros_like, dtype=wide), weights)
    of_flat, of_weights = jax.lax.fori_loop(0, tiles.used, add, zeros)
    of_bias = None if weights.b_out is None else jnp.zeros_like(weights.b_out)
    of_weights = jax.tree.map(_as, of_weights, weights._replace(b_out=None))
    return _as(of_flat, flat), of_weights._replace(b_out=of_bias), None


tile_outputs.defvjp(_forward, tile_gradient)


def block_outputs(plan: Plan, rows: Array, weights: FFNWeights, block: Array) -> Array:
    """What one block adds to the outputs (r, o) of its tokens."""
    part, inside = block_rows(plan, weights, block)
    return neuron_outputs(rows, part, inside, plan.activation)


def block_rows(plan: Plan, weights: FFNWeights, block: Array) -> tuple[FFNWeights, Array | None]:
    """The weights of one block, and which of their rows are its own; None where all are.

    The last block of uneven ones begins early enough to be whole.
    """
    start, size = _start(plan, weights, block), min(plan.block_size, weights.w_in.shape[0])
    part = map_neurons(lambda rows: jax.lax.dynamic_slice_in_dim(rows, start, size), weights)
    if weights.w_in.shape[0] % size == 0:
        return part, None
    return part, start + jnp.arange(size) >= block * plan.block_size


def _start(plan: Plan, weights: FFNWeights, block: Array) -> Array:
    neurons = weights.w_in.shape[0]
    return jnp.minimum(block * plan.block_size, max(0, neurons - plan.block_size))


def _rows(flat: Array, tokens: Array) -> Array:
    return flat.at[tokens].get(mode="clip", indices_are_sorted=True)


def _added(outputs: Array, tokens: Array, mine: Array) -> Array:
    return outputs.at[tokens].add(mine, mode="drop", indices_are_sorted=True, unique_indices=True)


def _as(here: Array, like: Array) -> Array:
    return here.astype(like.dtype)
