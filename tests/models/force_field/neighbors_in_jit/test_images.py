"""The search through all images finds what the host finds, in cells down to a third of the cutoff."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import jax
import numpy as np
import pytest

from sparsejax.models.force_field.neighbors_in_jit.images import image_list
from sparsejax.models.force_field.neighbors_in_jit.plan import Plan
from sparsejax.models.force_field.structure import Structure, heights, periodic_cell
from tests.models.force_field.rows import assert_complete, assert_opposites, edges_of_rows, structure_of

CASES = {  # pbc, atoms (more than one word of bits in the second), images, cells
    "bulk": ((True, True, True), 5, (2, 2, 2), 150),
    "wire": ((False, True, False), 37, (0, 2, 0), 100),
}


@lru_cache
def search(pbc, images):
    """One program for any cutoff."""
    plan = Plan("images", 0.0, 0.0, 0.0, pbc, slots=250, images=images)
    return jax.jit(lambda x, cell, reach: image_list(x, cell, dataclasses.replace(plan, reach=reach)))


@pytest.mark.parametrize("case", CASES)
def test_random_cells_give_the_edges_of_the_host(case):
    pbc, n, images, count = CASES[case]
    total = own = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        cell = np.diag(rng.uniform(2.0, 6.0, 3)) + (seed % 2) * rng.uniform(-1, 1, (3, 3))
        atoms = Structure(np.ones(n, np.int32), np.zeros((n, 3)), cell, np.array(pbc))
        full = periodic_cell(atoms)
        spread = np.where(pbc, 3.0, 6.0 / heights(full))
        positions = ((rng.uniform(-1, 1, (n, 3)) * spread) @ full).astype(np.float32)
        low = heights(full)[np.array(pbc)].min()
        cutoff = float(min(5.0, rng.uniform(0.3, 2.4) * low))
        found = jax.device_get(search(pbc, images)(positions, cell.astype(np.float32), cutoff + 2e-3))
        rows = edges_of_rows(found.slots.senders, found.shifts, found.slots.mask)
        assert_opposites(found.slots.senders, found.shifts, found.slots.mask, found.slots.reverse)
        total += assert_complete(
            rows, structure_of(positions, cell.astype(np.float32), pbc), cutoff, cutoff + 4e-3
        )
        own += sum(edge[0] == edge[1] for edge in rows)
        np.testing.assert_allclose(found.heights, heights(full), rtol=1e-4)
    assert total > 5_000
    assert own > 500
