"""The scikit-learn estimators: their contract, what they find, and how few programs they need."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine, make_friedman1
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sparsejax as sj
from sparsejax.models.ultra_sparse.estimator import TableWarning, UltraSparseClassifier, UltraSparseRegressor
from sparsejax.models.ultra_sparse.export_numpy import export_numpy
from sparsejax.models.ultra_sparse.fuse import compile_network
from sparsejax.models.ultra_sparse.problems import make_problem
from sparsejax.models.ultra_sparse.table_fit import merge_rows
from sparsejax.models.ultra_sparse.trainers import TRAINERS
from tests.compilations import compilations

SMALL = {"rounds": 20, "steps": 10, "chains": 2, "random_state": 0}
SEARCH = {"steps": 2000, "chains": 2, "random_state": 0}
"""All tests share these, and so their compiled programs."""


@pytest.mark.filterwarnings("ignore::sparsejax.models.ultra_sparse.estimator.TableWarning")
@pytest.mark.filterwarnings("ignore:SCIPY_ARRAY_API is not set")
@parametrize_with_checks([UltraSparseRegressor(**SMALL), UltraSparseClassifier(**SMALL)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def curve(rows=200, columns=6, seed=0):
    """Rows with a target of columns 1 and 4."""
    features = np.random.default_rng(seed).normal(size=(rows, columns))
    return features, np.sin(2 * features[:, 1]) + features[:, 4] ** 2


@pytest.fixture(scope="module")
def fitted():
    features, targets = curve()
    return SimpleNamespace(
        features=features,
        targets=targets,
        regressor=UltraSparseRegressor(**SMALL).fit(features, targets),
        classifier=UltraSparseClassifier(**SMALL).fit(features, np.where(targets > 0.7, "high", "low")),
    )


# What is found


def test_friedman1_up_to_its_noise():
    """The noise has variance 1 of 25: no model can pass R2 = 0.96 but by chance."""
    features, targets = make_friedman1(1000, 10, noise=1.0, random_state=0)
    x, x_test, y, y_test = train_test_split(features, targets, test_size=0.5, random_state=0)
    model = UltraSparseRegressor(**SMALL).fit(x, y)
    assert model.score(x_test, y_test) > 0.9
    assert model.get_support()[:5].all()
    assert model.config_.num_parameters == 33


@pytest.mark.slow
def test_true_columns_among_a_thousand():
    problem = make_problem("high_dimensional")
    model = UltraSparseRegressor(12, rounds=200, chains=2, random_state=0)
    model.fit(problem.train.features, np.ravel(problem.train.targets))
    chosen = set(model.get_support(indices=True).tolist())
    error = np.mean((model.predict(problem.test.features) - np.ravel(problem.test.targets)) ** 2)
    assert len(chosen & set(problem.true_features)) >= 8
    assert len(chosen) <= 20
    assert error < 0.03  # LassoCV: 0.05


def test_breast_cancer_with_few_columns():
    x, x_test, y, y_test = train_test_split(
        *load_breast_cancer(return_X_y=True), random_state=0, stratify=load_breast_cancer().target
    )
    model = UltraSparseClassifier(**SMALL).fit(x, y)
    assert model.score(x_test, y_test) > 0.91
    assert model.get_support().sum() <= 16


def test_three_classes_with_names():
    data = load_wine()
    names = data.target_names[data.target]
    x, x_test, y, y_test = train_test_split(data.data, names, random_state=0, stratify=names)
    model = UltraSparseClassifier(**SMALL).fit(x, y)
    assert list(model.classes_) == ["class_0", "class_1", "class_2"]
    assert model.decision_function(x_test).shape == (len(x_test), 3)
    assert model.score(x_test, y_test) > 0.85
    np.testing.assert_allclose(model.predict_log_proba(x_test), np.log(model.predict_proba(x_test)))


def test_constant_columns_are_never_read():
    features, targets = curve()
    wide = np.hstack([np.full((200, 1), 7.0), features, np.zeros((200, 2))])
    with pytest.warns(TableWarning, match="3 of 9 columns are constant and carry no information: 0, 7, 8"):
        model = UltraSparseRegressor(**SMALL).fit(wide, features[:, 1])
    assert not model.get_support()[[0, 7, 8]].any()
    with pytest.warns(TableWarning):
        searched = UltraSparseRegressor(trainer="anneal", **SEARCH).fit(wide, targets)
    assert not searched.get_support()[[0, 7, 8]].any()


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_learns(name):
    options = SEARCH if name in ("anneal", "hill_climb", "tempering") else SMALL
    if name == "genetic":
        options = {**options, "steps": None}
    features, targets = curve()
    model = UltraSparseRegressor(trainer=name, **options)
    assert model.fit(features, features[:, 1]).score(features, features[:, 1]) > 0.5
    assert model.history_[-1] < 1.01 * model.history_[0]  # sparse_fit weighs the loss against columns read


def test_tanh_head_stays_within_one_deviation(fitted):
    model = UltraSparseRegressor(output_activation="tanh", **SMALL).fit(fitted.features, fitted.targets)
    reached = np.abs(model.predict(fitted.features) - fitted.targets.mean()) / fitted.targets.std()
    assert reached.max() <= 1 + 1e-6
    metadata = model.to_checkpoint().metadata
    outputs = np.asarray(model.to_checkpoint().apply(fitted.features.astype(np.float32)))
    restored = outputs * metadata["target_scale"] + metadata["target_mean"]
    np.testing.assert_allclose(restored[:, 0], model.predict(fitted.features), atol=1e-5)


def test_several_outputs_in_their_own_units(fitted):
    scales, offsets = np.array([1, 100, 1e-3, 1, 10]), np.array([0, 1e4, 0, -5, 0])
    targets = offsets + scales * fitted.features[:, [0, 2, 2, 3, 0]]
    model = UltraSparseRegressor(**SMALL).fit(fitted.features, targets)
    predicted = model.predict(fitted.features)
    assert predicted.shape == targets.shape
    assert (((predicted - targets) / scales) ** 2).mean(axis=0).max() < 0.2


# How rows count


def test_weight_two_is_the_row_twice_in_any_order():
    features, targets, weights = merge_rows(
        np.array([[3.0], [1.0], [1.0], [2.0]]), np.array([[0.0], [5.0], [5.0], [9.0]]), np.array([1, 1, 2, 0])
    )
    np.testing.assert_array_equal(features, [[1], [3]])
    np.testing.assert_array_equal(targets, [[5], [0]])
    np.testing.assert_array_equal(weights, [3, 1])


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(200), np.full(200, np.nan), np.zeros(200)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="sample_weight"):
        UltraSparseRegressor(**SMALL).fit(*curve(), sample_weight=weights)


def test_rows_set_aside_pick_the_chain(fitted):
    plain = UltraSparseRegressor(**SMALL).fit(fitted.features, fitted.targets)
    judged = clone(plain).set_params(validation_fraction=0.3).fit(fitted.features, fitted.targets)
    assert judged.chain_scores_.shape == (2,)
    assert not np.allclose(judged.chain_scores_, plain.chain_scores_)
    assert judged.score(fitted.features, fitted.targets) > 0.8


# Determinism, progress, compilation


def test_random_state_fixes_the_result(fitted):
    again = clone(fitted.regressor).fit(fitted.features, fitted.targets)
    other = clone(again).set_params(random_state=1).fit(fitted.features, fitted.targets)
    np.testing.assert_array_equal(again.predict(fitted.features), fitted.regressor.predict(fitted.features))
    assert not np.array_equal(other.predict(fitted.features), again.predict(fitted.features))


def test_callback_sees_falling_losses_and_can_end_the_fit(fitted):
    seen = []
    model = clone(fitted.regressor).set_params(callback=lambda done, loss: seen.append((done, loss)))
    model.fit(fitted.features, fitted.targets)
    assert [done for done, _ in seen] == list(range(1, model.n_iter_ + 1))
    assert model.n_iter_ > 1 and seen[-1][1] <= seen[0][1]
    ended = model.set_params(callback=lambda done, loss: done == 1).fit(fitted.features, fitted.targets)
    assert ended.n_iter_ == 1 and np.isfinite(ended.predict(fitted.features)).all()


def test_tables_of_similar_size_share_programs(fitted):
    del fitted  # has compiled them
    with compilations() as counts:
        for rows, columns in ((60, 3), (150, 17), (500, 32)):
            UltraSparseRegressor(ridge=1e-4, **SMALL).fit(*curve(rows, max(columns, 5)))
    assert counts["_init"] == 0 and counts["_advance"] == 0


# Company: pipelines, searches, pickles, files


def test_pipeline_grid_and_folds(fitted):
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), UltraSparseRegressor(**SMALL)),
        {"ultrasparseregressor__ridge": [1e-5, 1e3]},
        cv=2,
    )
    grid.fit(fitted.features, fitted.targets)
    assert grid.best_params_ == {"ultrasparseregressor__ridge": 1e-5}
    assert cross_val_score(fitted.regressor, fitted.features, fitted.targets, cv=2).min() > 0.7


def test_pickle_keeps_predictions(fitted):
    for model in (fitted.regressor, fitted.classifier):
        copy = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(copy.predict(fitted.features), model.predict(fitted.features))


def test_names_of_a_frame_reach_the_checkpoint(fitted):
    pandas = pytest.importorskip("pandas", exc_type=ImportError)
    frame = pandas.DataFrame(fitted.features, columns=[f"f{n}" for n in range(6)])
    model = clone(fitted.regressor).fit(frame, fitted.targets)
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.to_checkpoint().metadata["feature_names"] == list(frame.columns)


def test_checkpoint_takes_raw_columns_and_travels(fitted, tmp_path):
    raw = 50 + 20 * fitted.features
    model = clone(fitted.regressor).fit(raw, 1000 + 30 * fitted.targets)
    ck = model.to_checkpoint()
    expected = model.predict(raw)
    near = {"rtol": 0, "atol": 1e-4 * np.ptp(expected)}
    np.testing.assert_allclose(ck.apply(jnp.asarray(raw))[:, 0], expected, **near)
    np.testing.assert_allclose(compile_network(ck)(jnp.asarray(raw))[:, 0], expected, **near)
    sj.save(ck, tmp_path / "net")
    np.testing.assert_allclose(sj.load(tmp_path / "net").apply(jnp.asarray(raw))[:, 0], expected, **near)
    names: dict = {}
    exec(export_numpy(ck, tmp_path / "net.py").read_text(), names)
    np.testing.assert_allclose(names["predict"](raw)[:, 0], expected, **near)


def test_classifier_checkpoint_gives_logits_of_its_classes(fitted):
    ck = fitted.classifier.to_checkpoint()
    logits = np.asarray(ck.apply(jnp.asarray(fitted.features)))
    labels = np.asarray(ck.metadata["classes"])[logits.argmax(axis=1)]
    assert (labels == fitted.classifier.predict(fitted.features)).mean() > 0.99
    assert ck.metadata["classes"] == ["high", "low"]
    assert fitted.classifier.score(fitted.features, np.where(fitted.targets > 0.7, "high", "low")) > 0.9


def test_support_is_what_prediction_depends_on(fitted):
    spoilt = fitted.features.copy()
    mask = fitted.regressor.get_support()
    spoilt[:, ~mask] = 1e6
    np.testing.assert_array_equal(fitted.regressor.predict(spoilt), fitted.regressor.predict(fitted.features))
    np.testing.assert_array_equal(fitted.regressor.get_support(indices=True), np.flatnonzero(mask))
    assert mask[[1, 4]].all()


# Bad input: one clear line each


def fit(features=None, targets=None, kind=UltraSparseRegressor, **changes):
    own, wanted = curve()
    kind(**{**SMALL, **changes}).fit(
        own if features is None else features, wanted if targets is None else targets
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(trainer="adam"), "no trainer is called 'adam'; near it: "),
        (lambda: fit(trainer="anneal", steps=None), "trainer 'anneal' has no rounds: leave that at None"),
        (lambda: fit(inputs_per_neuron=7), "inputs_per_neuron=7, but only 6 columns vary"),
        (lambda: fit(features=np.ones((200, 3))), "all 3 columns are constant"),
        (lambda: fit(chains=0), "chains must be at least 1"),
        (lambda: fit(hidden_size=0), "hidden_size must be a whole number of at least 1, not 0"),
        (lambda: fit(hidden_size=2.5), "hidden_size must be a whole number of at least 1, not 2.5"),
        (lambda: fit(validation_fraction=1.5), "validation_fraction must be between 0 and 1"),
        (lambda: fit(features=np.full((200, 3), np.nan)), "contains NaN"),
        (lambda: fit(features=curve()[0] * 1e200), "too large: their squares overflow"),
        (lambda: fit(targets=np.ones(200), kind=UltraSparseClassifier), "one class only"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sparse_matrices_are_refused():
    with pytest.raises(TypeError, match="dense data is required"):
        fit(features=scipy.sparse.csr_matrix(curve()[0]))


def test_fewer_rows_than_parameters_is_a_warning():
    with pytest.warns(TableWarning, match="20 rows for 33 parameters"):
        UltraSparseRegressor(**SMALL).fit(*curve(rows=20))


def test_package_loads_without_scikit_learn():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import sparsejax.models.ultra_sparse as family\n"
        "assert 'sparsejax.models.ultra_sparse.estimator' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
