"""Distances between atoms: of a crystal, an ideal gas and molecules, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.radial_distribution import radial_distribution
from sparsejax.models.force_field.structure import Structure

PERIODIC = np.ones(3, bool)


def test_the_density_around_random_points_is_the_mean():
    draws = np.random.default_rng(0)
    species = np.array([6] * 300 + [8] * 200)
    gas = [Structure(species, draws.uniform(0, 9, (500, 3)), 9.0 * np.eye(3), PERIODIC) for _ in range(3)]
    found = radial_distribution(gas, reach=6.0, bins=12)
    assert found.periodic and list(found.curves) == ["C-C", "C-O", "O-O"]
    for curve in found.curves.values():
        np.testing.assert_allclose(curve[4:], 1, atol=0.06)


def test_a_cubic_lattice_has_six_and_twelve_neighbours():
    lattice = Structure(np.array([14]), np.zeros((1, 3)), 3.0 * np.eye(3), PERIODIC)
    found = radial_distribution([lattice], reach=5.0, bins=50)
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, 5, 51) ** 3)
    counts = found.curves["Si-Si"] * shells / 27
    first, second = counts[(found.distances > 2.5) & (found.distances < 3.5)], counts[found.distances > 3.9]
    assert first.sum() == pytest.approx(6) and second.sum() == pytest.approx(12)


def test_a_molecule_has_the_share_of_pairs_within_reach():
    row = np.array([[0.0, 0, 0], [0, 0, 1.05], [0, 0, 2.1], [0, 0, 9.0]])
    molecule = Structure(np.array([1, 1, 1, 8]), row, None, np.zeros(3, bool))
    found = radial_distribution([molecule], reach=4.0, bins=40)
    width = found.distances[1] - found.distances[0]
    assert not found.periodic and list(found.curves) == ["H-H"]  # the oxygen is out of reach
    assert found.curves["H-H"].sum() * width == pytest.approx(1)
    assert found.curves["H-H"][10] * width == pytest.approx(2 / 3)


def test_frames_of_other_atoms_are_refused():
    one = Structure(np.array([1]), np.zeros((1, 3)), None, np.zeros(3, bool))
    with pytest.raises(ValueError, match="frame 1 has other atoms"):
        radial_distribution([one, one._replace(species=np.array([2]))])
    with pytest.raises(ValueError, match="no frames"):
        radial_distribution([])
