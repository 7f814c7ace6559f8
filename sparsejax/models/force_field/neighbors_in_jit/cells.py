"""Pairs by a grid of cells, in time proportional to the atoms; jax-md sorts the atoms into the grid.

A grid cell is at least as wide as the list reaches, so an atom sees only atoms of its own and of the cells
around. jax-md's own list would take the nearest image of each pair; here the neighbouring cell itself says
which image is meant, so that a box need only be as high as the reach, not twice as high.
"""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.force_field.neighbors_in_jit.frame import complete_cell, heights, inverse
from sparsejax.models.force_field.neighbors_in_jit.plan import Found, Grid, Plan
from sparsejax.models.force_field.neighbors_in_jit.slots import BITS, fill_slots

_BELOW_ONE = 1 - 2.0**-20  # keeps an atom at the upper face in the last cell, whatever rounds
_FAR = 1e9  # A, where empty places of the grid stand


def cell_list(positions: Array, cell: Array, plan: Plan) -> Found:
    """All pairs within reach, for boxes at least that high.

    Args:
      positions: (n, 3), A, anywhere.
      cell: (3, 3), A.
      plan: with a ``grid``.

    Returns:
      Rows; complete if the heights of the cell are no less than the plan's, and no cell of the grid is
      fuller than its capacity.
    """
    grid = plan.grid
    assert grid is not None
    cell = complete_cell(cell, plan.pbc)
    inverse_cell = inverse(cell)
    repeats, counts = np.array(plan.pbc), np.array(grid.counts)
    # Read by more than one fusion, which must not each compute their own: a floor may step in one.
    fractional = jax.lax.optimization_barrier(positions @ inverse_cell)
    turns = jnp.where(repeats, jnp.floor(fractional), 0.0)
    wrapped = positions - turns @ cell
    along = jnp.where(repeats, fractional - turns, fractional / (plan.reach * counts) % 1.0)
    ids, fullest = _sort_into_grid(jnp.minimum(along, _BELOW_ONE) * counts, grid)
    steps, neighbour, wraps = _neighbour_cells(plan.pbc, grid.counts)
    words = _near(wrapped, ids, (wraps @ cell).astype(positions.dtype), neighbour, plan.reach)
    at = _places(ids, len(positions))
    home, place = at // grid.capacity, at % grid.capacity
    blocks = words.shape[1]

    def sender(word: Array, bit: Array) -> Array:
        return ids[neighbour[word // blocks, home[:, None]], word % blocks * BITS + bit]

    def opposite(word: Array, bit: Array) -> tuple[Array, Array]:
        # Opposite steps are opposite in the table.
        other = (steps - 1 - word // blocks) * blocks + place[:, None] // BITS
        return other, jnp.broadcast_to(place[:, None] % BITS, word.shape)

    rows = words.reshape(-1, *words.shape[2:])[:, place, home].T
    found = fill_slots(rows, plan.slots, sender, opposite)
    turns = turns.astype(jnp.int32)
    shifts = wraps[found.word // blocks, home[:, None]] + turns[:, None] - turns[found.senders]
    shifts = jnp.where(found.mask[..., None], shifts, 0)
    return Found(found, shifts, heights(inverse_cell), fullest)


def _sort_into_grid(coordinates: Array, grid: Grid) -> tuple[Array, Array]:
    """Atoms of every cell (cells, capacity), n where there is none, and how many the fullest has."""
    from jax_md import partition

    # jax-md wants three cells along each axis; the ones beyond ours stay empty and are cut off.
    box = np.maximum(grid.counts, 3).astype(float)
    filled = partition.cell_list(box, 1.0).update(coordinates, grid.capacity)
    x, y, z = grid.counts
    ids = filled.id_buffer.reshape(*filled.id_buffer.shape[:4])[:z, :y, :x]
    cell = filled.particle_cell_id @ np.array([1, x, x * y])
    fullest = jnp.max(jnp.zeros(x * y * z, jnp.int32).at[cell].add(1))
    return ids.reshape(x * y * z, grid.capacity), fullest


def _neighbour_cells(pbc: tuple[bool, ...], counts: tuple[int, int, int]) -> tuple[int, Array, Array]:
    """Steps s to the cells around: how many, where to (s, cells), lattice vectors crossed (s, cells, 3)."""
    spans = [
        (0,) if count == 1 and not repeats else (-1, 0, 1) for repeats, count in zip(pbc, counts, strict=True)
    ]
    steps = list(product(*spans))
    x, y, z = counts
    home = np.stack(np.meshgrid(range(z), range(y), range(x), indexing="ij"), -1).reshape(-1, 3)[:, ::-1]
    moved = home + np.array(steps)[:, None]
    wraps = np.where(pbc, moved // np.array(counts), 0)
    moved = moved % np.array(counts)
    flat = jnp.asarray(moved @ np.array([1, x, x * y]), jnp.int32)
    return len(steps), flat, jnp.asarray(wraps, jnp.int32)


def _near(wrapped: Array, ids: Array, offsets: Array, neighbour: Array, reach: float | Array) -> Array:
    """Bits (s, blocks, capacity, cells): is place b of the cell a step away near place c of this cell?"""
    cells, capacity = ids.shape
    blocks = -(-capacity // BITS)
    places = jnp.pad(wrapped, ((0, 1), (0, 0)), constant_values=_FAR)[ids.T]  # (capacity, cells, 3)
    x, y, z = jnp.moveaxis(places, -1, 0)

    def look(place: Array, words: Array) -> Array:
        sx, sy, sz = (axis[place][neighbour] + offsets[..., k] for k, axis in enumerate((x, y, z)))
        d2 = (sx[:, None] - x) ** 2 + (sy[:, None] - y) ** 2 + (sz[:, None] - z) ** 2
        bits = (d2 <= reach**2).astype(jnp.uint32) << (place % BITS).astype(jnp.uint32)
        block = place // BITS
        return words.at[:, block].set(words[:, block] | bits)

    words = jnp.zeros((len(neighbour), blocks, capacity, cells), jnp.uint32)
    words = jax.lax.fori_loop(0, capacity, look, words)
    own = np.arange(capacity)  # nobody sees itself
    centre = len(neighbour) // 2
    keep = ~(np.uint32(1) << (own % BITS).astype(np.uint32))
    return words.at[centre, own // BITS, own].set(words[centre, own // BITS, own] & keep[:, None])


def _places(ids: Array, n: int) -> Array:
    """Where in the grid each atom is: cell * capacity + place."""
    return jnp.zeros(n, jnp.int32).at[ids.ravel()].set(jnp.arange(ids.size, dtype=jnp.int32), mode="drop")
