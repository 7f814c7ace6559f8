"""Lattice geometry inside jit equals numpy's."""

from __future__ import annotations

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.force_field import structure
from sparsejax.models.force_field.neighbors_in_jit.frame import complete_cell, heights, inverse


@pytest.mark.parametrize("pbc", [*product((True, False), repeat=3)])
def test_cells_are_completed_at_right_angles_to_what_repeats(pbc):
    cell = np.random.default_rng(5).normal(size=(3, 3)) + 3 * np.eye(3)
    full = np.asarray(complete_cell(jnp.asarray(cell), pbc))
    expected = structure.periodic_cell(
        structure.Structure(np.ones(1, np.int32), np.zeros((1, 3)), cell, np.array(pbc))
    )
    np.testing.assert_allclose(full[list(pbc)], cell[list(pbc)], rtol=1e-6)
    np.testing.assert_allclose(full @ full.T, expected @ expected.T, atol=1e-5)
    np.testing.assert_allclose(inverse(jnp.asarray(full)), np.linalg.inv(full), atol=1e-5)
    np.testing.assert_allclose(heights(inverse(jnp.asarray(full))), structure.heights(full), rtol=1e-5)
