"""Shifts: what each leaves alone, the random ones, and the problem made for them."""

from __future__ import annotations

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.problems import degradation, gate_changes, make_problem, shift
from sparsejax.models.ultra_sparse.problems.shift import GAUSSIAN_CENTRES, ShiftKind

FEATURES = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)


@pytest.mark.parametrize("kind", get_args(ShiftKind))
def test_magnitude_zero_is_no_shift_and_jit_agrees(kind):
    key = jax.random.key(0)
    np.testing.assert_allclose(shift(FEATURES, kind, 0.0, key), FEATURES, atol=1e-6)
    compiled = jax.jit(lambda x, m: shift(x, kind, m, key))(FEATURES, 0.7)
    np.testing.assert_allclose(compiled, shift(FEATURES, kind, 0.7, key), atol=1e-5)


def test_rotation_keeps_lengths_and_moves_two_columns():
    moved = np.asarray(shift(FEATURES, "rotation", 1.1))
    np.testing.assert_allclose(np.hypot(*moved[:, :2].T), np.hypot(*FEATURES[:, :2].T), rtol=1e-5)
    np.testing.assert_array_equal(moved[:, 2:], FEATURES[:, 2:])


def test_noise_has_the_deviation_asked_for_and_dropout_the_share():
    noise = np.asarray(shift(FEATURES, "noise", 0.5, jax.random.key(1))) - FEATURES
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 0.5) < 0.02
    dropped = np.asarray(shift(FEATURES, "dropout", 0.3, jax.random.key(1)))
    gone = dropped == 0
    assert gone.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(dropped[~gone], FEATURES[~gone])


def test_blur_of_an_even_image_changes_nothing():
    np.testing.assert_allclose(shift(jnp.ones((2, 64)), "blur", 0.9), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "kind", "line"),
    [
        (FEATURES, "warp", "shift 'warp' is not one of"),
        (FEATURES, "noise", "shift 'noise' is random: pass key="),
        (FEATURES[:, :63], "blur", "needs square images; 63 columns are none"),
        (FEATURES[:, :1], "rotation", "moves columns 0 and 1; there is only 1"),
    ],
)
def test_impossible_shifts_are_refused(features, kind, line):
    with pytest.raises(ValueError, match=line):
        shift(features, kind, 1.0)


def test_curves_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="two curves of one length"):
        degradation([0.0, 1.0], [1.0])
    assert degradation([0.0, 1.0], [0.9, 0.8]).half is None
    assert gate_changes([0.0, 1.0], [[1], [1]]).total == 0


def test_classes_of_the_gaussians_sit_at_their_centres():
    problem = make_problem("shift_gaussians", samples=4000)
    for label, centre in enumerate(GAUSSIAN_CENTRES):
        rows = problem.train.features[problem.train.targets == label]
        np.testing.assert_allclose(rows[:, :2].mean(axis=0), centre, atol=0.12)
        assert np.abs(rows[:, 2:].mean(axis=0)).max() < 0.15
    nearest = (
        ((problem.test.features[:, None, :2] - np.array(GAUSSIAN_CENTRES)) ** 2).sum(axis=2).argmin(axis=1)
    )
    assert np.mean(nearest == problem.test.targets) > 0.94
