"""Neighbour lists that live inside jit: built with a skin, rebuilt when needed, never silently short.

Outside jit `allocate` makes a list and `grow` gives it more room; inside jit `update` keeps it right. A
list with a skin holds pairs up to cutoff + skin, so that it stays complete while atoms move less.
Positions are never wrapped: shifts belong to the atoms where they are, and stay right when one drifts
through a face of the cell.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from sparsejax.models.force_field.neighbors import Neighbors, all_pairs, edge_list, rows_from_edges
from sparsejax.models.force_field.neighbors_in_jit.cells import cell_list
from sparsejax.models.force_field.neighbors_in_jit.frame import complete_cell, inverse
from sparsejax.models.force_field.neighbors_in_jit.images import image_list
from sparsejax.models.force_field.neighbors_in_jit.plan import Plan, make_plan
from sparsejax.models.force_field.structure import Structure, check_geometry, heights, periodic_cell

HEAD_ROOM = 1.15
"""Slots of a new list over those that its fullest row needs now."""

_SLACK = 0.05  # part of its heights that a cell may lose once more after a list had to grow


class Needs(NamedTuple):
    """The most that a list was asked for since it was allocated.

    Attributes:
      slots: () int32, of the fullest row.
      fullest: () int32, atoms in the fullest cell of the grid.
      heights: (3,) least heights of the cell, A.
    """

    slots: Array
    fullest: Array
    heights: Array


@struct.dataclass
class NeighborState:
    """A list and what it takes to keep it right.

    Attributes:
      neighbors: rows, complete up to the cutoff.
      reference_positions: (n, 3), A, of the last build.
      reference_cell: (3, 3), A, of the last build.
      overflow: () bool: since it was allocated, the list has once been too short. What was computed with
        it may lack pairs; go back, `grow`, and repeat.
      needs: what it would have taken.
      builds: () int32, how often the list was built inside jit.
      plan: method, cutoff, skin and capacities.
    """

    neighbors: Neighbors
    reference_positions: Array
    reference_cell: Array
    overflow: Array
    needs: Needs
    builds: Array
    plan: Plan = struct.field(pytree_node=False)

    @property
    def method(self) -> str:
        """How the list is built."""
        return self.plan.method

    @property
    def cutoff(self) -> float:
        """A, up to which the list is complete."""
        return self.plan.cutoff

    @property
    def skin(self) -> float:
        """A, by how much further the list looks."""
        return self.plan.skin


def allocate(
    positions: Any,
    cell: Any,
    pbc: Any,
    cutoff: float,
    skin: float,
    *,
    method: str = "auto",
    head_room: float = HEAD_ROOM,
) -> NeighborState:
    """Make a list, outside jit.

    Args:
      positions: (n, 3), A, in the dtype that the list is to keep.
      cell: (3, 3), A, or None where nothing repeats.
      pbc: one bool or three.
      cutoff: A, inclusive.
      skin: A; a wider one is rebuilt less often and holds more pairs.
      method: "all_pairs" for molecules, never rebuilt; "cell_list" for boxes at least cutoff + skin high;
        "images" for any cell, in quadratic time; "auto" chooses.
      head_room: slots over those that the fullest row needs now.

    Returns:
      A list of these positions.

    Raises:
      ValueError: positions, cell or skin that cannot be right, or that the method cannot do.

    Example:
      >>> state = allocate(jnp.array([[0.0, 0, 0], [0, 0, 1.1]]), None, False, 5.0, 0.5)
      >>> state.method, state.neighbors.mask.tolist()
      ('all_pairs', [[False, True], [True, False]])
    """
    structure = _structure(positions, cell, pbc)
    check_geometry(structure)
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"cutoff must be a positive number of A, not {cutoff!r}")
    if not (math.isfinite(skin) and skin >= 0):
        raise ValueError(f"skin must be a number of A, zero or more, not {skin!r}")
    plan = make_plan(structure, cutoff, skin, method=method)
    return _build(structure, jnp.asarray(positions), plan, head_room)


def update(state: NeighborState, positions: Array, cell: Array | None = None) -> NeighborState:
    """Make a list right for these positions; for use inside jit.

    It is built anew only if a pair may have come within the cutoff: where atoms moved by more than half
    the skin, beyond how the cell was strained and the whole was shifted.

    Args:
      state: of these atoms.
      positions: (n, 3), A, anywhere: not wrapped.
      cell: (3, 3), A; None where nothing repeats.

    Returns:
      The list; its ``overflow`` is set if it lacks room, or if a position is not finite.

    Example:
      >>> state = allocate(jnp.zeros((1, 3)), 4 * jnp.eye(3), True, 4.0, 0.5)
      >>> moved = jax.jit(update)(state, jnp.full((1, 3), 9.0), 3.9 * jnp.eye(3))
      >>> int(moved.neighbors.mask.sum()), int(moved.builds), bool(moved.overflow)
      (6, 0, False)
    """
    positions = jax.lax.stop_gradient(positions)  # who is near whom has no slope
    if state.plan.method == "all_pairs":
        return dataclasses.replace(state, overflow=state.overflow | ~jnp.isfinite(positions).all())
    cell = (
        state.reference_cell
        if cell is None
        else jax.lax.stop_gradient(jnp.asarray(cell, state.reference_cell.dtype))
    )
    stale = _is_stale(state, positions, cell)
    return jax.lax.cond(stale, _rebuild, lambda state, *_: state, state, positions, cell)


def grow(state: NeighborState, positions: Any, cell: Any = None) -> NeighborState:
    """Give a list more room, outside jit.

    Args:
      state: with ``overflow`` set.
      positions: (n, 3), A, from before the list was too short.
      cell: (3, 3), A; None where nothing repeats.

    Returns:
      A larger list of these positions, with ``overflow`` cleared. Its shapes are new, so that what uses
      it compiles once more.

    Raises:
      ValueError: a position is NaN or infinite: no room would help.

    Example:
      >>> state = allocate(jnp.zeros((1, 3)), 4 * jnp.eye(3), True, 4.0, 0.5)
      >>> squeezed = jax.jit(update)(state, jnp.zeros((1, 3)), 3 * jnp.eye(3))
      >>> larger = grow(squeezed, jnp.zeros((1, 3)), 4 * jnp.eye(3))
      >>> bool(squeezed.overflow), state.plan.slots, larger.plan.slots
      (True, 8, 22)
    """
    old, needs = state.plan, jax.device_get(state.needs)
    structure = _structure(positions, cell if any(old.pbc) else None, old.pbc)
    check_geometry(structure)
    low = np.minimum(heights(periodic_cell(structure)), needs.heights) * (1 - _SLACK)
    too_low = old.method == "cell_list" and bool((low < old.reach)[structure.pbc].any())
    method = "images" if too_low else old.method
    plan = make_plan(structure, old.cutoff, old.skin, method=method, low=low)
    if plan.grid is not None:
        capacity = max(plan.grid.capacity, math.ceil(1.2 * needs.fullest) + 1)
        plan = dataclasses.replace(plan, grid=plan.grid._replace(capacity=capacity))
    plan = dataclasses.replace(plan, slots=max(old.slots, int(needs.slots)))
    return dataclasses.replace(_build(structure, jnp.asarray(positions), plan), builds=state.builds)


def _structure(positions: Any, cell: Any, pbc: Any) -> Structure:
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise ValueError(f"positions must be (n, 3) with at least one atom, not {positions.shape}")
    cell = None if cell is None else np.asarray(cell, np.float64)
    pbc = np.array(np.broadcast_to(np.asarray(pbc, bool), 3))
    return Structure(np.ones(len(positions), np.int32), positions, cell, pbc)


def _build(structure: Structure, positions: Array, plan: Plan, head_room: float = HEAD_ROOM) -> NeighborState:
    """The first list of a plan, made on the host; rows get room beyond what they and the plan need."""
    n = structure.num_atoms
    if plan.method == "all_pairs":
        rows, needed = all_pairs(1, n), n
        plan = dataclasses.replace(plan, slots=n)
    else:
        edges = edge_list(structure, plan.reach)
        needed = int(np.bincount(edges.receivers, minlength=n).max())
        slots = math.ceil(head_room * max(needed, plan.slots)) + 1
        if not structure.periodic:
            slots = max(1, min(slots, n - 1))
        plan = dataclasses.replace(plan, slots=slots)
        rows = rows_from_edges(edges, n, slots=slots)
    if plan.method == "cell_list":
        import jax_md  # noqa: F401  # what it makes at import must not be made while jit traces
    cell = np.eye(3) if structure.cell is None else structure.cell
    low = jnp.asarray(heights(periodic_cell(structure)), positions.dtype)
    return NeighborState(
        neighbors=jax.tree.map(jnp.asarray, rows),
        reference_positions=positions,
        reference_cell=jnp.asarray(cell, positions.dtype),
        overflow=jnp.asarray(False),
        needs=Needs(jnp.asarray(needed, jnp.int32), jnp.asarray(0, jnp.int32), low),
        builds=jnp.asarray(0, jnp.int32),
        plan=plan,
    )


def _is_stale(state: NeighborState, positions: Array, cell: Array) -> Array:
    """Whether a pair that is not in the list may have come within the cutoff.

    Strain maps the old cell on the new one, and r on r D; what atoms moved beyond that is u, up to a shift
    of the whole. A pair further apart than cutoff + skin is then still at least s (cutoff + skin) - 2 |u|
    apart, where s, the least singular value of D, is at least 1 - |D - 1|.
    """
    plan = state.plan
    kept = 1.0
    expected = state.reference_positions
    if any(plan.pbc):
        old, new = (complete_cell(each, plan.pbc) for each in (state.reference_cell, cell))
        strain = inverse(old) @ new
        kept = 1.0 - jnp.linalg.norm(strain - jnp.eye(3, dtype=strain.dtype))
        expected = expected @ strain
    moved = positions - expected
    moved = moved - moved.mean(0)
    furthest = jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=1)))
    # NaN compares as False, and must count as stale.
    return ~(2 * furthest <= kept * (plan.cutoff + plan.skin) - plan.cutoff)


def _rebuild(state: NeighborState, positions: Array, cell: Array) -> NeighborState:
    plan = state.plan
    found = (image_list if plan.grid is None else cell_list)(positions, cell, plan)
    rows = found.slots
    enough = (rows.longest <= plan.slots) & (found.heights >= np.array(plan.least_heights)).all()
    if plan.grid is not None:
        enough &= found.fullest <= plan.grid.capacity
    needs = Needs(
        jnp.maximum(state.needs.slots, rows.longest),
        jnp.maximum(state.needs.fullest, found.fullest),
        jnp.minimum(state.needs.heights, found.heights),
    )
    return dataclasses.replace(
        state,
        neighbors=Neighbors(rows.senders, found.shifts, rows.mask, rows.reverse),
        reference_positions=positions,
        reference_cell=cell,
        overflow=state.overflow | ~enough | ~jnp.isfinite(positions).all(),
        needs=needs,
        builds=state.builds + 1,
    )
