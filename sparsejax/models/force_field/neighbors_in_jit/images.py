"""Pairs by trying every atom with every image, for cells that are small against the cutoff."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.force_field.neighbors_in_jit.frame import complete_cell, heights, inverse
from sparsejax.models.force_field.neighbors_in_jit.plan import Found, Plan
from sparsejax.models.force_field.neighbors_in_jit.slots import BITS, fill_slots


def image_list(positions: Array, cell: Array, plan: Plan) -> Found:
    """All pairs within reach, images of small cells included.

    Args:
      positions: (n, 3), A, anywhere.
      cell: (3, 3), A.
      plan: with ``images``.

    Returns:
      Rows; complete if the heights of the cell are no less than the plan's.

    Example:
      >>> plan = Plan("images", 4.1, 0.0, 4.1, (True, True, True), slots=6, images=(1, 1, 1))
      >>> search = jax.jit(lambda positions, cell: image_list(positions, cell, plan))
      >>> int(search(jnp.zeros((1, 3)), 4 * jnp.eye(3)).slots.mask.sum())
      6
    """
    n = len(positions)
    cell = complete_cell(cell, plan.pbc)
    inverse_cell = inverse(cell)
    repeats = np.array(plan.pbc)
    around = np.stack(np.meshgrid(*(range(-c, c + 1) for c in plan.images or ()), indexing="ij"), -1).reshape(
        -1, 3
    )
    # Read by more than one fusion, which must not each compute their own: a half may round up in one.
    fractional = jax.lax.optimization_barrier(positions @ inverse_cell)

    def nearest(apart: Array) -> Array:
        return jnp.where(repeats, -jnp.rint(apart), 0.0)

    blocks, bits = -(-n // BITS), min(n, BITS)
    senders = jnp.pad(fractional, ((0, blocks * BITS - n), (0, 0)), constant_values=jnp.nan)
    senders = senders.reshape(blocks, BITS, 3)
    offsets = around @ cell

    def look(bit: Array, words: Array) -> Array:
        apart = senders[:, bit, None] - fractional  # (blocks, n, 3); NaN, never near, for padding
        apart = apart + nearest(apart)
        # Component by component, atoms last: a loop over three numbers would be slow.
        vectors = (sum(apart[..., k] * cell[k, axis] for k in range(3)) for axis in range(3))
        d2 = sum((v + offsets[:, axis, None, None]) ** 2 for axis, v in enumerate(vectors))
        return words | (d2 <= plan.reach**2).astype(jnp.uint32) << bit.astype(jnp.uint32)

    words = jnp.zeros((len(around), blocks, n), jnp.uint32)
    words = jax.lax.fori_loop(0, bits, look, words)
    atom = jnp.arange(n, dtype=jnp.int32)
    own = jnp.uint32(1) << (atom % BITS).astype(jnp.uint32)  # nobody sees itself
    words = words.at[len(around) // 2, atom // BITS, atom].set(
        words[len(around) // 2, atom // BITS, atom] & ~own
    )

    def sender(word: Array, bit: Array) -> Array:
        return word % blocks * BITS + bit

    def opposite(word: Array, bit: Array) -> tuple[Array, Array]:
        other = (len(around) - 1 - word // blocks) * blocks + atom[:, None] // BITS
        return other, jnp.broadcast_to(atom[:, None] % BITS, word.shape)

    found = fill_slots(words.reshape(-1, n).T, plan.slots, sender, opposite)
    between = nearest(fractional[found.senders] - fractional[:, None]).astype(jnp.int32)
    shifts = jnp.asarray(around, jnp.int32)[found.word // blocks] + between
    shifts = jnp.where(found.mask[..., None], shifts, 0)
    return Found(found, shifts, heights(inverse_cell), jnp.asarray(0, jnp.int32))
