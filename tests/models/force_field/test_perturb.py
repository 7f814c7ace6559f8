"""Structures near given ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase")

from ase.build import bulk, molecule

from sparsejax.models.force_field.perturb import rattled


def test_copies_are_scaled_and_rattled_as_asked():
    crystal = bulk("Cu", cubic=True) * (2, 2, 2)
    found = rattled([crystal], 200, spread=(0.05, 0.15), scale=(0.9, 1.1), seed=1)
    factors = np.array([atoms.cell[0, 0] / crystal.cell[0, 0] for atoms in found])
    moves = [
        atoms.positions - factor * crystal.positions for atoms, factor in zip(found, factors, strict=True)
    ]
    widths = np.array([move.std() for move in moves])
    assert 0.9 <= factors.min() < 0.92 and 1.08 < factors.max() <= 1.1
    assert factors.mean() == pytest.approx(1, abs=0.02)
    assert 0.04 < widths.min() < 0.06 and 0.14 < widths.max() < 0.18
    assert np.abs(np.mean(moves)) < 2e-3


def test_a_copy_depends_on_seed_and_place_alone():
    water, methane = molecule("H2O"), molecule("CH4")
    few, many = rattled([water, methane], 1, seed=3), rattled([water, methane], 5, seed=3)
    np.testing.assert_array_equal(few[1].positions, many[5].positions)
    assert not np.array_equal(many[0].positions, many[1].positions)
    assert not np.array_equal(few[0].positions, rattled([water], 1, seed=4)[0].positions)
    np.testing.assert_array_equal(water.positions, molecule("H2O").positions)


def test_impossible_ranges_are_refused():
    with pytest.raises(ValueError, match="at least 1 copy"):
        rattled([], 0)
    with pytest.raises(ValueError, match="from a smaller to a larger number"):
        rattled([], 1, spread=(0.2, 0.1))
