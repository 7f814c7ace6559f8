"""The recurrence in chunks: all chunks at once from a zero start, then the carry between them.

One decay for all steps makes the in-chunk part a product by one lower-triangular Toeplitz matrix per
eigenstate. With a selective decay or a reset no two chunks share a matrix, so a product would be a matrix per
state vector; there the chunks are scanned side by side instead: c dependent steps for chunks of c.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.adjoint import with_adjoint
from sparsejax.ops.linear_recurrence.associative import entering
from sparsejax.ops.linear_recurrence.decay import (
    Decay,
    Pair,
    add,
    cast,
    kept_transition,
    multiply,
)
from sparsejax.ops.linear_recurrence.powers import powers

CHUNK = 64


def _forward(
    drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
) -> tuple[Pair, Pair]:
    if reverse:
        return _backwards(drive, decay, initial, reset)
    dtype = accumulator(drive[0].dtype)
    batch, length, width = drive[0].shape
    wide = cast(drive, dtype)
    chunks = _chunks(wide[0]), _chunks(wide[1])
    if decay.selective or reset is not None:
        local, products = _side_by_side(chunks, kept_transition(decay, reset, dtype))
    else:
        local, products = _toeplitz(chunks, decay)
    start = entering(_last(local), _last(products), initial)
    states = add(local, multiply(products, (start[0][:, :, None], start[1][:, :, None])))
    real, imaginary = (part.reshape(batch, -1, width)[:, :length] for part in states)
    return cast((real, imaginary), drive[0].dtype), (real[:, -1], imaginary[:, -1])


def _backwards(drive: Pair, decay: Decay, initial: Pair, reset: Array | None) -> tuple[Pair, Pair]:
    own = Decay(*_flip(decay)) if decay.selective else decay
    states, final = _forward(_flip(drive), own, initial, None if reset is None else jnp.flip(reset, 1))
    return _flip(states), final


def _flip(pair: Pair) -> Pair:
    return jnp.flip(pair[0], 1), jnp.flip(pair[1], 1)


def _chunks(every: Array) -> Array:
    """(b, t, k) as (b, n, c, k), zeros after the last step."""
    batch, length, width = every.shape
    size = min(CHUNK, length)
    padded = jnp.pad(every, ((0, 0), (0, -length % size), (0, 0)))
    return padded.reshape(batch, -1, size, width)


def _toeplitz(drive: Pair, decay: Decay) -> tuple[Pair, Pair]:
    """States (b, n, c, k) from a zero start, and lambda^1 .. lambda^c as (1, 1, c, k)."""
    size = drive[0].shape[2]
    table = powers(decay, jnp.arange(size + 1))
    distance = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    causal = (distance >= 0)[..., None]
    real, imaginary = (jnp.where(causal, part[jnp.maximum(distance, 0)], 0) for part in table)

    def product(matrix: Array, part: Array) -> Array:
        return jnp.einsum("tsk,bnsk->bntk", matrix, part, precision="highest")

    states = (
        product(real, drive[0]) - product(imaginary, drive[1]),
        product(real, drive[1]) + product(imaginary, drive[0]),
    )
    return states, (table[0][None, None, 1:], table[1][None, None, 1:])


def _side_by_side(drive: Pair, factor: Pair) -> tuple[Pair, Pair]:
    """States (b, n, c, k) from a zero start and the products of lambda since each chunk began."""
    shape = drive[0].shape[0], factor[0].shape[1], drive[0].shape[3]
    own = _chunks(jnp.broadcast_to(factor[0], shape)), _chunks(jnp.broadcast_to(factor[1], shape))

    def step(carry: tuple[Pair, Pair], at: tuple[Pair, Pair]) -> tuple[tuple[Pair, Pair], tuple[Pair, Pair]]:
        state, product = carry
        here, by = at
        now = add(multiply(by, state), here), multiply(by, product)
        return now, now

    nothing = jnp.zeros_like(drive[0][:, :, 0])
    start = (nothing, nothing), (nothing + 1, nothing)
    steps = jax.tree.map(_step_major, (drive, own))
    _, (states, products) = jax.lax.scan(step, start, steps)
    chunks: tuple[Pair, Pair] = jax.tree.map(_step_minor, (states, products))
    return chunks


def _last(pair: Pair) -> Pair:
    return pair[0][:, :, -1], pair[1][:, :, -1]


def _step_major(part: Array) -> Array:
    return jnp.moveaxis(part, 2, 0)


def _step_minor(part: Array) -> Array:
    return jnp.moveaxis(part, 0, 2)


run = with_adjoint(_forward)
"""Cost with one decay: 8 c flops per state in matrix products (c = `CHUNK`), two passes over the states (some
40 bytes per state in float32) and k c^2 matrix elements; log2(T / c) dependent rounds. Otherwise: 14 flops
and some 64 bytes per state, c dependent steps. See `adjoint.Run` for the arguments.
"""
