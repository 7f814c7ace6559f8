"""The search through a grid finds what the host finds, in boxes from the cutoff itself up."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import lru_cache

import jax
import numpy as np
import pytest

from sparsejax.models.force_field.neighbors_in_jit.cells import cell_list
from sparsejax.models.force_field.neighbors_in_jit.plan import Grid, Plan
from sparsejax.models.force_field.structure import Structure, heights, periodic_cell
from tests.models.force_field.rows import assert_complete, assert_opposites, edges_of_rows, structure_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax_md") is None, reason="jax-md is not installed")

N = 60
CASES = {  # pbc, grid; places beyond one word of bits in both
    "bulk": ((True, True, True), Grid((3, 1, 2), 45)),
    "slab": ((True, False, True), Grid((1, 3, 1), 60)),
}


@lru_cache
def search(pbc, grid):
    """One program for any cutoff."""
    plan = Plan("cell_list", 0.0, 0.0, 0.0, pbc, slots=150, grid=grid)
    return jax.jit(lambda x, cell, reach: cell_list(x, cell, dataclasses.replace(plan, reach=reach)))


@pytest.mark.parametrize("case", CASES)
def test_random_boxes_give_the_edges_of_the_host(case):
    pbc, grid = CASES[case]
    repeats = np.array(pbc)
    total = crossed = 0
    for seed in range(125):
        rng = np.random.default_rng(seed)
        cell = np.diag(rng.uniform(5.0, 7.0, 3)) + (seed % 2) * rng.uniform(-2, 2, (3, 3))
        cutoff = float(rng.uniform(1.0, 3.0))
        reach = cutoff + 2e-3
        atoms = Structure(np.ones(N, np.int32), np.zeros((N, 3)), cell, repeats)
        across = heights(periodic_cell(atoms)) / np.array(grid.counts)
        # Every fifth box is just high enough.
        scale = (
            max(1.0, 1.0001 * reach / across[repeats].min())
            if seed % 5
            else 1.0001 * reach / (across[repeats].min())
        )
        cell = (cell * scale).astype(np.float32)
        full = periodic_cell(atoms._replace(cell=cell.astype(np.float64)))
        # An axis that does not repeat is twice as long as the grid, which folds it.
        spread = np.where(repeats, 3.0, 3.0 * reach)
        positions = ((rng.uniform(-1, 1, (N, 3)) * spread) @ full).astype(np.float32)
        found = jax.device_get(search(pbc, grid)(positions, cell, reach))
        assert found.fullest <= grid.capacity
        assert found.slots.longest <= 150
        rows = edges_of_rows(found.slots.senders, found.shifts, found.slots.mask)
        assert_opposites(found.slots.senders, found.shifts, found.slots.mask, found.slots.reverse)
        total += assert_complete(rows, structure_of(positions, cell, pbc), cutoff, cutoff + 4e-3)
        crossed += sum(any(edge[2:]) for edge in rows)
    assert total > 20_000
    assert crossed > 10_000


def test_atoms_on_the_faces_of_the_box_lose_nobody():
    pbc, grid = CASES["bulk"]
    rng = np.random.default_rng(2)
    cell = np.diag([12.0, 4.5, 9.0]).astype(np.float32)
    # On faces and edges, a rounding below or above them, and whole cells away.
    fractional = rng.choice([0.0, 1 / 3, 0.5, 1.0, -1.0, 2.0], (N, 3))
    inside = rng.uniform(0, 1, (N, 3))
    fractional = np.where(rng.random((N, 3)) < 0.5, fractional, inside)
    positions = (fractional @ cell).astype(np.float32)
    positions = np.nextafter(positions, rng.choice([-np.inf, np.inf], (N, 3)).astype(np.float32))
    found = jax.device_get(search(pbc, grid)(positions, cell, 3.5))
    assert found.fullest <= grid.capacity
    rows = edges_of_rows(found.slots.senders, found.shifts, found.slots.mask)
    assert assert_complete(rows, structure_of(positions, cell, pbc), 3.498, 3.502) > 1_000


def test_a_cell_that_is_too_full_is_told():
    pbc, grid = CASES["bulk"]
    crowd = np.random.default_rng(0).uniform(0, 1, (N, 3)).astype(np.float32)
    found = search(pbc, grid)(crowd, np.diag([12.0, 4.5, 9.0]).astype(np.float32), 3.5)
    assert int(found.fullest) == N
