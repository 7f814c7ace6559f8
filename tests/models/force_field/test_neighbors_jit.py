"""Lists inside jit: right after any drift and strain, rebuilt rarely, and never silently short."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.force_field.neighbors_in_jit.plan import Grid
from sparsejax.models.force_field.neighbors_jit import NeighborState, allocate, grow, update
from tests.compilations import compilations
from tests.models.force_field.rows import assert_complete, assert_opposites, edges_of_rows, structure_of

CUTOFF, SKIN = 5.0, 0.5
BULK = (True, True, True)
ROOMY = 2.0  # head room; one program then serves most tests
UPDATE = jax.jit(update)
needs_jax_md = pytest.mark.skipif(
    importlib.util.find_spec("jax_md") is None, reason="jax-md is not installed"
)


def silicon(repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell of diamond, a little rattled."""
    basis = (
        np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    )
    grid = np.stack(np.meshgrid(*[range(repeats)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    positions = (5.43 * (basis + grid)).reshape(-1, 3)
    noise = np.random.default_rng(0).normal(0, 0.05, positions.shape)
    return (positions + noise).astype(np.float32), np.eye(3, dtype=np.float32) * 5.43 * repeats


def assert_right(state: NeighborState, positions, cell, pbc, cutoff: float = CUTOFF) -> int:
    """The list is complete up to the cutoff, wherever the atoms are now; returns its edges within."""
    rows = state.neighbors
    assert not state.overflow
    assert_opposites(rows.senders, rows.shifts, rows.mask, rows.reverse)
    found = edges_of_rows(rows.senders, rows.shifts, rows.mask)
    return assert_complete(found, structure_of(positions, cell, pbc), cutoff, 100.0 if rows.block else 7.0)


@needs_jax_md
@pytest.mark.parametrize(
    ("method", "repeats", "strain"), [("images", 1, 0.0), ("images", 1, 2e-3), ("cell_list", 2, 2e-3)]
)
def test_lists_stay_right_while_atoms_drift_through_the_faces(method, repeats, strain):
    x, cell = silicon(repeats)
    rng = np.random.default_rng(1)
    heat, drift = rng.normal(0, 0.03, x.shape), np.array([0.3, -0.2, 0.1])
    state = allocate(x, cell, BULK, CUTOFF, SKIN, method=method, head_room=ROOMY)
    edges = [assert_right(state, x, cell, BULK)]
    builds = []
    for _ in range(60):
        stretch = np.eye(3) + strain * rng.uniform(-1, 1, (3, 3))
        x, cell = ((x + heat + drift) @ stretch).astype(np.float32), (cell @ stretch).astype(np.float32)
        heat = np.where(rng.random(x.shape) < 0.2, -heat, heat)
        state = UPDATE(state, x, cell)
        edges.append(assert_right(state, x, cell, BULK))
        builds.append(int(state.builds))
    assert len(set(edges)) > 5
    assert np.abs(x @ np.linalg.inv(cell)).max() > 1.5  # far outside the cell, and never wrapped
    assert 3 <= builds[-1] <= 45
    assert state.method == method


def test_shifting_or_straining_the_whole_is_no_reason_to_build():
    x, cell = silicon(1)
    state = allocate(x, cell, BULK, CUTOFF, SKIN, head_room=ROOMY)
    assert state.method == "images"
    squeezed = 0.98 * np.eye(3, dtype=np.float32)
    moved = UPDATE(state, x @ squeezed + 7.5, cell @ squeezed)
    assert int(moved.builds) == 0
    assert_right(moved, x @ squeezed + 7.5, cell @ squeezed, BULK)
    assert int(UPDATE(state, x @ squeezed**6, cell @ squeezed**6).builds) == 1
    one = x.copy()
    one[3, 2] += 0.2
    assert int(UPDATE(state, one, cell).builds) == 0
    one[3, 2] += 0.2
    assert int(UPDATE(state, one, cell).builds) == 1


def test_molecules_see_everybody_and_are_never_built_again():
    x = np.random.default_rng(0).normal(0, 2, (9, 3)).astype(np.float32)
    state = allocate(x, None, False, CUTOFF, SKIN)
    assert (state.method, state.cutoff, state.skin, state.neighbors.block) == ("all_pairs", CUTOFF, SKIN, 9)
    far = UPDATE(state, 3 * x)
    assert_right(far, 3 * x, None, (False,) * 3)
    assert int(far.builds) == 0
    assert bool(UPDATE(state, np.full_like(x, np.nan)).overflow)


def test_rows_that_become_too_short_are_told_and_mended():
    x, cell = silicon(1)
    state = allocate(x, cell, BULK, CUTOFF, SKIN, head_room=ROOMY)
    assert state.plan.slots == 2 * int(state.needs.slots) + 1
    packed, tight = 0.7 * x, 0.7 * cell
    short = UPDATE(state, packed, tight)
    assert bool(short.overflow)
    assert int(short.needs.slots) > state.plan.slots
    assert_opposites(*(getattr(short.neighbors, name) for name in ("senders", "shifts", "mask", "reverse")))
    assert bool(UPDATE(short, x, cell).overflow)  # until it has grown
    larger = grow(short, x, cell)
    assert_right(larger, x, cell, BULK)
    assert_right(UPDATE(larger, packed, tight), packed, tight, BULK)


def test_cells_that_become_too_low_are_told_and_mended():
    x, cell = silicon(1)
    state = allocate(x, cell, BULK, CUTOFF, SKIN, head_room=ROOMY)
    assert state.plan.images == (1, 1, 1)
    squeeze = np.diag([1.0, 1.0, 0.6]).astype(np.float32)
    low = UPDATE(state, x @ squeeze, cell @ squeeze)
    assert bool(low.overflow)
    larger = grow(low, x, cell)
    assert larger.plan.images == (1, 1, 2)
    assert_right(UPDATE(larger, x @ squeeze, cell @ squeeze), x @ squeeze, cell @ squeeze, BULK)


@needs_jax_md
def test_grid_cells_that_become_too_full_are_told_and_mended():
    rng = np.random.default_rng(3)
    n, pbc = 90, (False,) * 3
    apart = (rng.permutation(1000)[:n, None] // [100, 10, 1] % 10 * 2.2).astype(np.float32)
    together = (0.55 * apart).astype(np.float32)
    state = allocate(apart, None, pbc, 3.0, SKIN, method="cell_list")
    assert state.plan.grid is not None
    assert state.plan.grid.counts == (6, 6, 6)
    full = UPDATE(state, together)
    assert bool(full.overflow)
    assert int(full.needs.fullest) > state.plan.grid.capacity
    larger = grow(full, apart)
    assert isinstance(larger.plan.grid, Grid)
    assert larger.plan.grid.capacity >= int(full.needs.fullest)
    assert larger.plan.slots > state.plan.slots
    assert_right(UPDATE(larger, together), together, None, pbc, 3.0)


def test_positions_that_are_no_numbers_are_told():
    x, cell = silicon(1)
    state = allocate(x, cell, BULK, CUTOFF, SKIN, head_room=ROOMY)
    broken = x.copy()
    broken[4, 1] = np.nan
    told = UPDATE(state, broken, cell)
    assert bool(told.overflow)
    with pytest.raises(ValueError, match="atom 4 has the y position nan"):
        grow(told, broken, cell)


def test_replicas_are_kept_side_by_side_and_steps_need_no_host():
    x, cell = silicon(1)
    state = allocate(x, cell, BULK, CUTOFF, SKIN, head_room=ROOMY)
    velocities = np.random.default_rng(2).normal(0, 0.05, (3, *x.shape)).astype(np.float32)

    @jax.jit
    def run(velocities):
        def step(carry, _):
            state, x = carry
            x = x + velocities
            return (update(state, x, cell), x), None

        return jax.lax.scan(step, (state, jnp.asarray(x)), length=10)[0]

    with compilations() as counts:
        states, ends = jax.vmap(run)(velocities)
        jax.vmap(run)(2 * velocities)
    assert counts["run"] == 1
    for replica in range(3):
        one = jax.tree.map(lambda leaf, at=replica: leaf[at], states)
        assert_right(one, ends[replica], cell, BULK)
        assert 1 <= int(one.builds) < 10


def test_double_precision_is_kept():
    x, cell = silicon(1)
    with jax.enable_x64(True):
        state = allocate(x.astype(np.float64), cell.astype(np.float64), BULK, CUTOFF, SKIN)
        moved = jax.jit(update)(state, x + 1.0 * np.arange(8)[:, None], cell.astype(np.float64))
        assert moved.reference_positions.dtype == np.float64
        assert moved.neighbors.senders.dtype == moved.neighbors.shifts.dtype == np.int32
        assert int(moved.builds) == 1
        assert_right(moved, x + 1.0 * np.arange(8)[:, None], cell, BULK)


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"positions": np.zeros((0, 3))}, r"positions must be \(n, 3\) with at least one atom, not \(0, 3\)"),
        ({"positions": np.full((2, 3), np.inf)}, "atom 0 has the x position inf"),
        ({"cell": None}, "pbc is set but there is no cell"),
        ({"cell": np.zeros((3, 3))}, "its cell has no extent along a"),
        ({"skin": -0.1}, "skin must be a number of A, zero or more, not -0.1"),
        ({"cutoff": 0.0}, "cutoff must be a positive number of A, not 0.0"),
        ({"method": "tree"}, "no method 'tree'"),
        ({"method": "cell_list"}, 'method="cell_list" needs a cell at least'),
    ],
)
def test_what_cannot_be_right_is_refused(change, needle):
    x, cell = silicon(1)
    given = {
        "positions": x,
        "cell": cell,
        "pbc": True,
        "cutoff": CUTOFF,
        "skin": SKIN,
        "method": "auto",
    } | change
    with pytest.raises(ValueError, match=needle):
        allocate(**given)
