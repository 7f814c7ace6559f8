"""Problems: disjoint parts, nothing learnt from held-out rows, no copies of the answer, clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from sparsejax.models.ultra_sparse.features import LEAK_COLUMNS
from sparsejax.models.ultra_sparse.problems import PROBLEMS, check_table, formulas, make_problem
from sparsejax.models.ultra_sparse.problems.problem import RawSplit, build_problem
from sparsejax.models.ultra_sparse.problems.sine import WAVES, leak_columns

SMALL = {"high_dimensional": {"columns": 60}}
RECIPES = ("trained", "readme", "sine_problem", "library")


def small(name, **options):
    return make_problem(name, **SMALL.get(name, {}), **options)


def parts(problem):
    return problem.train, problem.validation, problem.test


@pytest.mark.parametrize("name", PROBLEMS)
def test_shapes_types_and_names_agree(name):
    problem = small(name)
    assert problem.name == name
    assert len(problem.columns) == len(problem.feature_names) == len(set(problem.feature_names))
    for part in parts(problem):
        assert part.features.dtype == np.float32
        assert part.features.shape == (len(part.targets), problem.num_features)
        assert np.isfinite(part.features).all()
        if problem.task == "regression":
            assert part.targets.dtype == np.float32 and part.targets.shape[1:] == (1,)
        else:
            assert part.targets.dtype == np.int32 and part.targets.ndim == 1
            assert set(part.targets) == set(range(problem.num_classes))


@pytest.mark.parametrize("name", PROBLEMS)
def test_seed_and_recorded_options_give_the_same_data_again(name):
    first = small(name, seed=3)
    again = make_problem(first.name, **json.loads(json.dumps(first.options)))
    other = small(name, seed=4)
    for own, same in zip(parts(first), parts(again), strict=True):
        np.testing.assert_array_equal(own.features, same.features)
        np.testing.assert_array_equal(own.targets, same.targets)
    assert first.options["seed"] == 3
    assert not np.array_equal(first.test.features, other.test.features)


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_row_is_in_two_parts(name):
    rows = [{row.tobytes() for row in part.features} for part in parts(small(name))]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in ("sine", "multi_frequency")])
def test_features_are_standardised_on_the_training_part(name):
    problem = small(name)
    features = problem.train.features.astype(np.float64)
    if name == "shift_gaussians":
        assert problem.feature_mean.tolist() == [0.0] * 16 and problem.feature_scale.tolist() == [1.0] * 16
        return
    live = np.ptp(features, axis=0) > 0
    assert np.abs(features.mean(axis=0)).max() < 1e-5
    np.testing.assert_allclose(features[:, live].std(axis=0), 1, atol=1e-5)
    assert np.abs(problem.test.features.mean(axis=0)).max() > 1e-3, "the test part has its own mean"


@pytest.mark.parametrize("name", ["friedman1", "friedman2", "friedman3", "high_dimensional", "time_series"])
def test_regression_targets_are_normalised_on_the_training_part(name):
    problem = small(name)
    targets = problem.train.targets.astype(np.float64)
    assert abs(targets.mean()) < 1e-6 and abs(targets.std() - 0.8) < 1e-6
    raw = small(name, noise=0.0, standardize=False)
    formula = getattr(formulas, name)
    exact = formula(raw.test.features)
    np.testing.assert_allclose(
        raw.original_targets(raw.test.targets[:, 0].astype(np.float64)), exact, atol=1e-5 * np.ptp(exact)
    )


def test_held_out_rows_change_nothing_in_the_training_part():
    draws = np.random.default_rng(0)
    raw = [RawSplit(draws.normal(size=(rows, 4)), draws.normal(size=rows)) for rows in (30, 20, 10)]
    problem = build_problem("mine", "regression", raw)
    changed = [raw[0], *(RawSplit(1e3 * part.features[::-1] + 7, part.targets - 50) for part in raw[1:])]
    other = build_problem("mine", "regression", changed)
    np.testing.assert_array_equal(problem.train.features, other.train.features)
    np.testing.assert_array_equal(problem.train.targets, other.train.targets)
    assert (problem.target_mean, problem.target_scale) == (other.target_mean, other.target_scale)
    np.testing.assert_allclose(
        other.test.features * problem.feature_scale + problem.feature_mean, changed[2].features, rtol=1e-5
    )


def test_measured_tables_keep_their_class_shares():
    problem = make_problem("digits")
    assert [len(part.targets) for part in parts(problem)] == [1167, 270, 360]
    shares = [np.bincount(part.targets, minlength=10) / len(part.targets) for part in parts(problem)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01 and np.abs(shares[0] - shares[2]).max() < 0.01


def test_sine_trains_on_the_published_grid_and_is_tested_elsewhere():
    problem = make_problem("sine")
    grid = np.linspace(-2 * np.pi, 2 * np.pi, 100)
    x = [part.features[:, 0].astype(np.float64) * 2 * np.pi for part in parts(problem)]
    np.testing.assert_allclose(x[0], grid, atol=1e-6)
    for points, part in zip(x, parts(problem), strict=True):
        np.testing.assert_allclose(part.targets[:, 0], np.sin(points), atol=2e-6)
        assert np.abs(points).max() <= 2 * np.pi + 1e-6
    assert np.mean(problem.train.targets**2) == pytest.approx(0.495, abs=1e-4), "what answering 0 scores"


def test_column_4_of_the_published_recipe_is_the_target():
    problem = make_problem("sine")
    np.testing.assert_allclose(problem.train.features[:, 4], problem.train.targets[:, 0], atol=1e-6)
    np.testing.assert_allclose(problem.train.features[:, 117], -problem.train.targets[:, 0], atol=1e-6)
    assert problem.true_features == tuple(range(15)), "column 15 is zero"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["sine", "multi_frequency"])
def test_leak_free_columns_do_not_copy_the_target(recipe, name):
    problem = make_problem(name, recipe=recipe, leak_free=True)
    features, targets = (values.astype(np.float64) for values in problem.train)
    correlation = [np.corrcoef(column, targets[:, 0])[0, 1] for column in features.T]
    assert np.abs(correlation).max() < 0.99
    assert np.ptp(features, axis=0).min() > 0
    full = make_problem(name, recipe=recipe)
    np.testing.assert_array_equal(full.test.features[:, problem.columns], problem.test.features)
    true = [problem.columns[column] for column in problem.true_features]
    assert set(true) <= set(full.true_features)


def test_leak_free_drops_exactly_the_known_columns():
    kept = make_problem("sine", leak_free=True)
    assert set(range(256)) - set(kept.columns) == {*LEAK_COLUMNS["trained"], 15}
    assert kept.num_features == 253
    assert kept.feature_names[4] == "5:sin"


def test_leak_columns_ignore_constant_ones_and_find_affine_copies():
    x = np.linspace(0, 1, 9)
    table = np.stack([3 - 2 * x, x**2, np.full(9, 5.0), x + 1e-3 * np.cos(9 * x)], axis=1)
    assert leak_columns(table, x).tolist() == [True, False, False, True]


@pytest.mark.parametrize("wave", WAVES)
def test_waves_stay_within_the_reach_of_a_tanh(wave):
    targets = make_problem("sine", wave=wave).test.targets
    assert np.abs(targets).max() <= 1 and targets.std() > 0.3


@pytest.mark.parametrize(
    ("n_true", "variant", "columns"),
    [(3, "full", 3), (5, "full", 5), (6, "full", 7), (9, "full", 9), (10, "full", 10), (10, "ablation", 8)],
)
def test_high_dimensional_target_depends_on_its_true_columns_only(n_true, variant, columns):
    x = np.random.default_rng(0).uniform(size=(50, 12))
    own = formulas.high_dimensional(x, n_true, variant)
    for column in range(12):
        moved = x.copy()
        moved[:, column] = 1 - 0.9 * moved[:, column]
        changed = np.abs(formulas.high_dimensional(moved, n_true, variant) - own).max() > 1e-6
        assert changed == (column < columns)
    problem = make_problem("high_dimensional", columns=20, n_true=n_true, variant=variant)
    assert problem.true_features == tuple(range(columns))


def test_friedman_ranges_are_friedmans_unless_the_published_ones_are_asked_for():
    raw = {"standardize": False, "samples": 2000}
    own = make_problem("friedman2", **raw).train.features
    published = make_problem("friedman2", ranges="published", **raw).train.features
    np.testing.assert_allclose(own[:, 1].max(), 560 * np.pi, rtol=0.01)
    np.testing.assert_allclose(published[:, 1].max(), 560, rtol=0.01)


def test_windows_of_a_series_hold_its_past():
    features = make_problem("time_series", standardize=False).train.features
    np.testing.assert_array_equal(features[1:, 1:], features[:-1, :-1])


def test_a_tenth_of_the_xor_labels_is_flipped():
    problem = make_problem("xor_labels", samples=4000, standardize=False)
    clean = formulas.xor_labels(problem.train.features)
    assert np.mean(clean != problem.train.targets) == pytest.approx(0.1, abs=0.015)
    for name in ("threshold_labels", "interaction_labels"):
        problem = make_problem(name, standardize=False)
        clean = getattr(formulas, name)(problem.train.features)
        np.testing.assert_array_equal(clean, problem.train.targets)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("freidman1", {}, r"no problem is called 'freidman1'; near it: friedman1, friedman3, friedman2"),
        ("zzz", {}, r"no problem is called 'zzz'; near it: sine, multi_frequency, .*shift_gaussians"),
        ("sine", {"recpie": "x"}, r"problem 'sine' has no option 'recpie'; it has recipe, leak_free, wave,"),
        ("multi_frequency", {"wave": "sine"}, "problem 'multi_frequency' has no option 'wave'"),
        ("sine", {"recipe": "original"}, "recipe 'original' is not one of"),
        ("sine", {"wave": "square"}, "wave 'square' is not one of"),
        ("sine", {"samples": 1}, "at least two samples, not 1"),
        ("friedman1", {"columns": 4}, r"the target reads columns \[4\], outside of the table's 4"),
        ("friedman1", {"samples": 0}, "samples must be at least 2, not 0"),
        ("friedman2", {"ranges": "mine"}, "ranges 'mine' is not one of"),
        ("friedman3", {"columns": 3}, "the circuit has 4 columns, not 3"),
        ("high_dimensional", {"n_true": 11}, "n_true must be from 1 to 10, not 11"),
        ("high_dimensional", {"variant": "x"}, "variant 'x' is not one of"),
        ("high_dimensional", {"columns": 9}, r"reads columns \[9\]"),
        ("xor", {"true_features": (1, 2, 3)}, r"exactly 2 columns, not \(1, 2, 3\)"),
        ("synthetic", {"true_features": (1,)}, r"at least 2 columns, not \(1,\)"),
        ("threshold_labels", {"true_features": (1, 1)}, "repeat a column"),
        ("time_series", {"lags": (0,)}, r"reads columns \[-1\]"),
        ("wine", {"test": 0.9, "validation": 0.1}, "leave no rows for a part"),
        ("shift_gaussians", {"columns": 1}, "needs 2 columns and 8 samples"),
    ],
)
def test_refusals_are_one_clear_line(name, options, line):
    with pytest.raises(ValueError, match=line) as refused:
        make_problem(name, **options)
    assert "\n" not in str(refused.value)


FEATURES = np.arange(12.0).reshape(6, 2) ** 2
TARGETS = np.arange(6.0)


@pytest.mark.parametrize(
    ("features", "targets", "task", "line"),
    [
        (np.where(FEATURES == 16, np.nan, FEATURES), TARGETS, "regression", r"in 1 of 6 rows \(2\)"),
        (FEATURES, np.where(TARGETS > 3, np.inf, TARGETS), "regression", r"targets hold .* rows \(4, 5\)"),
        (FEATURES, np.ones(6, int), "classification", "all 6 labels are 1: at least two classes"),
        (FEATURES, np.array(["a"] * 6), "classification", "all 6 labels are a:"),
        (FEATURES, TARGETS[:5], "regression", r"targets of shape \(5,\) do not fit 6 rows"),
        (FEATURES[:0], TARGETS[:0], "regression", r"features of shape \(0, 2\)"),
        (FEATURES[:, 0], TARGETS, "regression", r"features of shape \(6,\)"),
        (FEATURES.astype(object), TARGETS, "regression", "features are object where real numbers are needed"),
        (FEATURES, np.array(["a"] * 6), "regression", "targets are <U1 where real numbers are needed"),
        (FEATURES, TARGETS, "ranking", "task 'ranking' is not one of"),
    ],
)
def test_tables_that_cannot_be_fitted_are_refused(features, targets, task, line):
    with pytest.raises(ValueError, match=line) as refused:
        check_table(features, targets, task)
    assert "\n" not in str(refused.value)


def test_odd_tables_are_told_one_line_each():
    features = np.concatenate([FEATURES, np.ones((6, 7))], axis=1)
    names = [f"sensor {column}" for column in range(9)]
    lines = check_table(features, TARGETS, "regression", num_parameters=33, feature_names=names)
    assert lines == (
        "7 of 9 columns are constant and carry no information: "
        "sensor 2, sensor 3, sensor 4, sensor 5, sensor 6 and 2 more",
        "6 rows for 33 parameters: only held-out rows tell what a net learnt",
    )
    assert check_table(FEATURES, TARGETS, "regression", num_parameters=6) == ()


def test_a_missing_scikit_learn_is_said_and_the_rest_works():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from sparsejax.models.ultra_sparse.problems import make_problem\n"
        "print(make_problem('friedman1'))\n"
        "try: make_problem('digits')\n"
        "except ModuleNotFoundError as error: print(error)\n"
        "from sparsejax.models.ultra_sparse.baselines import baselines\n"
        "try: baselines(None, None)\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    lines = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert lines.splitlines() == [
        "Problem(friedman1, regression, 20 features, 500 + 250 + 1000 rows)",
        "the problem 'digits' needs scikit-learn",
        "the baselines need scikit-learn",
    ]
