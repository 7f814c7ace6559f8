"""The originals' problems and shifts, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.ultra_sparse import expand_input
from sparsejax.models.ultra_sparse.problems import (
    degradation,
    formulas,
    gate_changes,
    make_problem,
    published_split,
    shift,
)
from sparsejax.models.ultra_sparse.problems.sine import two_waves
from tests import golden
from tests.models.ultra_sparse.published import allowed, arrays, document

pytestmark = golden.needs_golden

FORMULAS = {
    "friedman1": formulas.friedman1,
    "friedman2": formulas.friedman2,
    "friedman3": formulas.friedman3,
    "synthetic": lambda x: formulas.synthetic(x, (3, 7, 11, 20)),
    "xor": lambda x: formulas.xor(x, (3, 5)),
    "timeseries": formulas.time_series,
}


def check(found, expected, case):
    found, expected = np.asarray(found, np.float64), expected.astype(np.float64)
    bound = allowed(case)[0] * np.maximum(1, np.abs(expected))
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= bound).all()


@pytest.mark.golden("problems_a")
@pytest.mark.parametrize("name", FORMULAS)
def test_noise_free_targets_are_the_originals(name):
    stored = arrays("problems_a")
    check(FORMULAS[name](stored[f"{name}_x"]), stored[f"{name}_y_noisefree"], "problems_a")


@pytest.mark.golden("problems_a")
@pytest.mark.parametrize(("columns", "n_true"), [(40, 10), (40, 6), (30, 9)])
def test_high_dimensional_rows_noise_and_targets_are_the_librarys(columns, n_true):
    stored, name = arrays("problems_a"), f"usen_highdim_{columns}_{n_true}"
    options = {"columns": columns, "n_true": n_true, "samples": 40, "seed": 42, "standardize": False}
    problem = make_problem("high_dimensional", **options)
    check(problem.train.features, stored[f"{name}_X"], "problems_a")
    check(problem.train.targets[:, 0], stored[f"{name}_y"], "problems_a")
    exact = formulas.high_dimensional(stored[f"{name}_X"], n_true)
    noise = problem.original_targets(problem.train.targets[:, 0].astype(np.float64)) - exact
    check(noise, 0.5 * stored[f"{name}_noise_n01"], "problems_a")


@pytest.mark.golden("problems_a")
def test_friedman1_rows_and_targets_are_the_librarys():
    stored = arrays("problems_a")
    problem = make_problem("friedman1", samples=40, seed=42, noise=0.5, standardize=False)
    check(problem.train.features, stored["usen_friedman1_X"], "problems_a")
    check(problem.train.targets[:, 0], stored["usen_friedman1_y"], "problems_a")


@pytest.mark.golden("problems_a")
def test_sine_of_the_library_is_the_originals():
    stored = arrays("problems_a")
    problem = make_problem("sine", recipe="library", samples=40, true_columns=16, noise_columns=0)
    check(problem.train.features, stored["fmc_sine_X"], "problems_a")
    check(problem.train.targets[:, 0], stored["fmc_sine_y"], "problems_a")


@pytest.mark.golden("problems_a")
def test_two_waves_are_the_originals():
    stored = arrays("problems_a")
    check(two_waves(stored["multifreq_x"].astype(np.float64)), stored["multifreq_y"], "problems_a")
    problem = make_problem("multi_frequency", samples=40)
    check(problem.train.targets[:, 0], stored["multifreq_y"], "problems_a")
    grid = expand_input(stored["multifreq_x"], columns=(0,))
    check(problem.train.features[:, 0], np.asarray(grid)[:, 0], "problems_a")


@pytest.mark.golden("shift_a")
@pytest.mark.parametrize("kind", ["translation", "rotation", "scaling", "brightness", "contrast", "blur"])
def test_shifts_are_the_originals(kind):
    stored = arrays("shift_a")
    digits = kind in ("brightness", "contrast", "blur")
    prefix = f"digits_{kind}_" if digits else f"{kind}_"
    names = [name for name in stored if name.startswith(prefix)]
    assert len(names) == 3
    for name in names:
        found = shift(stored["D" if digits else "X"], kind, float(name.removeprefix(prefix)))
        assert np.abs(np.asarray(found, np.float64) - stored[name]).max() <= allowed("shift_a")[0]


@pytest.mark.golden("shift_a")
def test_degradation_is_the_originals():
    stored = document("shift_metrics_a")
    found, expected = degradation(stored["magnitudes"], stored["accuracies"]), stored["degradation"]
    assert found.area == pytest.approx(expected["auc"], rel=1e-12)
    assert found.steepest == pytest.approx(expected["max_derivative"], rel=1e-12)
    assert found.mean_derivative == pytest.approx(expected["mean_derivative"], rel=1e-12)
    assert (found.cliffs, found.half) == (expected["n_cliff_points"], expected["shift_to_50_percent"])
    assert found.final == expected["final_accuracy"]


@pytest.mark.golden("shift_a")
def test_gate_changes_are_the_originals():
    stored = document("shift_metrics_a")
    found, expected = gate_changes(stored["magnitudes"], stored["gates"]), stored["gate_changes"]
    assert found.total == expected["total_gate_changes"]
    assert list(found.per_step) == expected["changes_per_step"]
    assert list(found.flip_magnitudes) == expected["flip_magnitudes"]
    assert len(found.flip_magnitudes) == expected["n_flip_points"]


@pytest.mark.golden("digits_a")
def test_published_digits_are_the_originals():
    stored, bound = arrays("digits_a"), allowed("digits_a")[0]
    split = published_split("digits")
    np.testing.assert_array_equal(split.train_labels, stored["y_train"])
    np.testing.assert_array_equal(split.test_labels, stored["y_test"])
    pairs = {
        "X_train_first20": split.train_features[:20],
        "X_test_first10": split.test_features[:10],
        "X_train_colmean": split.train_features.mean(axis=0),
        "X_train_colstd": split.train_features.std(axis=0),
    }
    for name, found in pairs.items():
        assert np.abs(found - stored[name]).max() <= bound, name


@pytest.mark.golden("digits_a")
def test_published_stratified_digits_are_the_originals():
    stored, split = arrays("digits_a"), published_split("digits", stratified=True)
    np.testing.assert_array_equal(split.train_labels, stored["usen_y_train"])
    np.testing.assert_array_equal(split.test_labels, stored["usen_y_test"])
    difference = split.train_features[:5] - stored["usen_X_train_first5"]
    assert np.abs(difference).max() <= allowed("digits_a")[0]
