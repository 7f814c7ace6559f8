"""All blocks side by side, each with the tokens that use it, for up to some hundred tokens on CPU.

A loop over tiles pays for its steps, and each step reads its weights on one thread; with few tokens this is
most of the time. Here every block has room for as many tokens as use it on average and some more, so that all
of them are two batched products; tokens beyond the room go by tiles, and none is dropped.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.sparse_ffn.block import STEP, Plan, tile_gradient, tile_outputs
from sparsejax.ops.sparse_ffn.kernel import in_blocks
from sparsejax.ops.sparse_ffn.tiles import tiles_of
from sparsejax.ops.sparse_ffn.weights import FFNWeights, activated

TOKENS = (64, 512)
"""Fewest and most tokens: with 2,048 neurons of width 512 in blocks of 64, 128 tokens with 3 blocks take 2.2
ms, by tiles 2.6; 256 with 8 4.5 and 6.3; 512 with 16 14.1 and 14.9, 768 as long either way."""

MOST_NUMBERS = 1 << 23
"""Most numbers in the rows of all blocks, 32 MiB in float32: more no longer stay in the cache."""

MOST_BLOCKS = 32
"""Most blocks of a token: its sum over them is written out, and more terms compile longer."""

ALIGNED = 8
"""The room of a block is a multiple of this number of tokens."""


def fits(flat: Array, mask: Array, most: int, plan: Plan) -> bool:
    """Whether this form is the faster one for these sizes. Arguments as for `block.block_ffn`.

    Example:
      >>> plan = Plan(64, "gelu")
      >>> [fits(jnp.ones((n, 512)), jnp.ones((n, 32), bool), 3, plan) for n in (8, 128, 4096)]
      [False, True, False]
    """
    (count, blocks), (fewest, largest) = mask.shape, TOKENS
    numbers = blocks * room(count, blocks, most=most) * max(flat.shape[1], plan.block_size)
    small = fewest <= count <= largest and numbers <= MOST_NUMBERS and most <= MOST_BLOCKS
    return small and backends.platform() == "cpu"


def room(count: int, blocks: int, *, most: int) -> int:
    """Tokens that a block has room for: the average and four times its root, rarely exceeded by chance.

    Example:
      >>> room(128, 32, most=3), room(512, 32, most=8), room(4, 32, most=3)
      (32, 176, 4)
    """
    average = count * min(most, blocks) / blocks
    wanted = math.ceil(average + 4 * math.sqrt(average))
    return min(count, -(-wanted // ALIGNED) * ALIGNED)


class Slots(NamedTuple):
    """Who stands where.

    Attributes:
      tokens: int32 (blocks * room,) the token of each place, n in empty ones.
      places: int32 (n, most) the places of each token, blocks * room or more where it has no further one.
      beyond: bool (n, blocks) what there is no room for.
    """

    tokens: Array
    places: Array
    beyond: Array


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batched_ffn(flat: Array, weights: FFNWeights, mask: Array, most: int, plan: Plan) -> Array:
    """`block.block_ffn` in this form. Arguments as there."""
    slots = _slots(mask, most)
    outputs = _gathered(_block_outputs(plan, _rows(flat, slots, mask), weights), slots)

    def with_tiles(outputs: Array) -> Array:
        tiles = tiles_of(slots.beyond, rows=STEP, most=most)
        return outputs + tile_outputs(plan, flat, weights, tiles).astype(outputs.dtype)

    added: Array = jax.lax.cond(slots.beyond.any(), with_tiles, lambda outputs: outputs, outputs)
    return added


def _forward(flat: Array, weights: FFNWeights, mask: Array, most: int, plan: Plan) -> tuple[Array, Any]:
    return batched_ffn(flat, weights, mask, most, plan), (flat, weights, mask)


def _backward(most: int, plan: Plan, kept: Any, cotangent: Array) -> tuple[Array, FFNWeights, None]:
    flat, weights, mask = kept
    slots = _slots(mask, most)
    _, pull_back = jax.vjp(partial(_block_outputs, plan), _rows(flat, slots, mask), weights)
    of_rows, of_weights = pull_back(_rows(cotangent, slots, mask))
    of_flat = _gathered(of_rows.astype(cotangent.dtype), slots)  # 16-bit terms, too, add up in 32

    def with_tiles(sums: tuple[Array, FFNWeights]) -> tuple[Array, FFNWeights]:
        tiles = tiles_of(slots.beyond, rows=STEP, most=most)
        more_of_flat, more_of_weights, _ = tile_gradient(plan, (flat, weights, tiles), cotangent)
        return sums[0] + more_of_flat.astype(cotangent.dtype), jax.tree.map(jnp.add, sums[1], more_of_weights)

    sums = (of_flat, of_weights)
    of_flat, of_weights = jax.lax.cond(slots.beyond.any(), with_tiles, lambda sums: sums, sums)
    return of_flat.astype(flat.dtype), of_weights, None


batched_ffn.defvjp(_forward, _backward)


def _slots(mask: Array, most: int) -> Slots:
    count, blocks = mask.shape
    size = room(count, blocks, most=most)
    nth = jnp.cumsum(mask, axis=0, dtype=jnp.int32) - 1
    inside = mask & (nth < size)
    place = jnp.where(inside, jnp.arange(blocks, dtype=jnp.int32) * size + nth, blocks * size)
    token = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], mask.shape)
    tokens = jnp.full(blocks * size, count, jnp.int32).at[place].set(token, mode="drop")
    return Slots(tokens, jnp.sort(place, axis=1)[:, : min(most, blocks)], mask & ~inside)


def _rows(flat: Array, slots: Slots, mask: Array) -> Array:
    """The rows (blocks, room, d) of the tokens, zero in empty places."""
    rows = flat.at[slots.tokens].get(mode="fill", fill_value=0)
    return rows.reshape(mask.shape[1], -1, flat.shape[1])


def _gathered(of_blocks: Array, slots: Slots) -> Array:
    """The sums (n, o) of what the blocks (blocks, room, o) have for each token."""
    # Without a barrier the products would be repeated for each term.
    rows = jax.lax.optimization_barrier(of_blocks.reshape(-1, of_blocks.shape[-1]))
    terms = (rows.at[places].get(mode="fill", fill_value=0) for places in slots.places.T)
    return sum(terms, start=jnp.zeros((), rows.dtype))


def _block_outputs(plan: Plan, rows: Array, weights: FFNWeights) -> Array:
    """What each block adds to the outputs (blocks, r, o) of its rows (blocks, r, d)."""
    parts = in_blocks(plan, weights)

    def sums(matrices: Array, bias: Array | None) -> Array:
        products = _products(rows, matrices, along=2)
        return products if bias is None else products + bias

    gate = None if parts.w_gate is None else sums(parts.w_gate, parts.b_gate)
    hidden = activated(plan.activation, sums(parts.w_in, parts.b_in), gate)
    return _products(hidden.astype(parts.w_out.dtype), parts.w_out, along=1)


def _products(left: Array, right: Array, *, along: int) -> Array:
    dtype = jnp.promote_types(left.dtype, right.dtype)
    numbers = (((2,), (along,)), ((0,), (0,)))
    factors = left.astype(dtype), right.astype(dtype)
    return jax.lax.dot_general(*factors, numbers, preferred_element_type=accumulator(dtype))
