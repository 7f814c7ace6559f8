"""Trajectories: the published numbers, and the alignment that the original got backwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.models.force_field import trajectory_metrics
from tests import golden


def rotation(angles):
    x, y, z = angles
    turns = [
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]),
        np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]),
        np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]),
    ]
    return turns[0] @ turns[1] @ turns[2]


@pytest.mark.golden("metrics")
def test_published_trajectory_metrics():
    arrays = golden.arrays("force_field", "metrics")
    positions = arrays["traj/pos"]
    np.testing.assert_allclose(trajectory_metrics.rmsd(positions), arrays["traj/rmsd"], atol=1e-9)
    found = trajectory_metrics.rmsd(positions, align=True)
    np.testing.assert_allclose(found, arrays["traj/rmsd_align_correct"], atol=1e-9)
    assert np.abs(found - arrays["traj/rmsd_align_original_buggy"])[1:].min() > 1e-4
    moves = trajectory_metrics.displacements(positions)
    for name in moves._fields:
        np.testing.assert_allclose(getattr(moves, name), arrays[f"traj/disp_{name}"], atol=1e-9)


@settings(max_examples=25)
@given(st.tuples(*[st.floats(-3.2, 3.2)] * 3), st.integers(0, 2**31))
def test_alignment_undoes_a_known_turn_and_shift(angles, seed):
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(6, 3))
    turned = reference @ rotation(angles).T + rng.normal(size=3)
    np.testing.assert_allclose(trajectory_metrics.aligned(turned, reference), reference, atol=1e-9)


def test_alignment_turns_but_never_mirrors():
    reference = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    mirrored = reference * np.array([1.0, 1, -1])
    assert trajectory_metrics.rmsd([mirrored], reference, align=True)[0] > 0.5
    flat = reference[:3]
    np.testing.assert_allclose(
        trajectory_metrics.rmsd([flat @ rotation((0.3, 0, 1)).T], flat, align=True), 0, atol=1e-9
    )


def test_bonds_and_stability():
    positions = np.zeros((3, 2, 3))
    positions[:, 1, 0] = [1.0, 1.5, 2.9]
    np.testing.assert_allclose(trajectory_metrics.bond_lengths(positions, [(0, 1)])[:, 0], [1, 1.5, 2.9])
    assert trajectory_metrics.is_stable(positions)
    assert not trajectory_metrics.is_stable(positions, limit=1.9)
    with pytest.raises(ValueError, match="beyond the 2 of a frame"):
        trajectory_metrics.bond_lengths(positions, [(0, 2)])


def test_summary_tells_deviation_stability_and_temperature():
    positions = np.zeros((2, 1, 3))
    positions[1, 0, 2] = 2.5
    words = trajectory_metrics.trajectory_summary(positions, [300.0, 500.0])
    assert "largest displacement: 2.500 A, not stable" in words
    assert "temperature: 400 +- 100 K, 300 to 500 K" in words


def test_bad_shapes_are_told_in_one_line():
    with pytest.raises(ValueError, match=r"positions must be frames \(f, n, 3\)"):
        trajectory_metrics.displacements(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="does not fit frames"):
        trajectory_metrics.rmsd(np.zeros((1, 4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="temperature must be a series"):
        trajectory_metrics.temperature_evolution([])
