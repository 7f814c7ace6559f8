"""The closed form against the formula written down in float64, also where it iterates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration import solve as calibrate_solve
from sparsejax.models.sparse_inference.calibration.moments import Moments
from sparsejax.models.sparse_inference.calibration.solve import leading_directions, solve_sums, solve_targets

DRAWS = np.random.default_rng(0)
N, D, F, RANK = 300, 20, 50, 7
X = DRAWS.normal(size=(N, D)) @ DRAWS.normal(size=(D, D)) + DRAWS.normal(size=D)
W, B = DRAWS.normal(size=(F, D)), DRAWS.normal(size=F)
SCALE = DRAWS.uniform(0.5, 2, F)


def by_svd(x, y, *, centred, ridge):
    """Scores of x as the specification's formula has them."""
    mean_x, mean_y = (x.mean(axis=0) if centred else np.zeros(x.shape[1])), y.mean(axis=0)
    rows = x - mean_x
    weight = ridge * len(x) * ((rows**2).mean() if centred else 1)
    products = rows.T @ rows + weight * np.eye(x.shape[1])
    full = np.linalg.solve(products, rows.T @ (y - mean_y))
    _, _, right = np.linalg.svd(np.linalg.cholesky(products).T @ full)
    kept = right[:RANK].T
    return rows @ full @ kept @ kept.T + mean_y


@pytest.mark.parametrize("formula", ["centred", "published"])
@pytest.mark.parametrize("scaled", [False, True])
def test_sums(formula, scaled):
    moments = Moments(D)
    moments.add(X)
    scale = SCALE if scaled else None
    found = solve_sums(moments, W, B, rank=RANK, scale=scale, ridge=0.01, formula=formula)
    expected = by_svd(X, (X @ W.T + B) * (SCALE if scaled else 1), centred=formula == "centred", ridge=0.01)
    np.testing.assert_allclose(found.scores(jnp.asarray(X)), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("formula", ["centred", "published"])
def test_targets(formula):
    y = np.maximum(X @ W.T + B, 0)
    moments = Moments(D, F)
    for start in range(0, N, 77):
        moments.add(X[start : start + 77], y[start : start + 77])
    found = solve_targets(moments, rank=RANK, ridge=0.01, formula=formula)
    expected = by_svd(X, y, centred=formula == "centred", ridge=0.01)
    np.testing.assert_allclose(found.scores(jnp.asarray(X)), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formula": "ridge"}, "no formula 'ridge'; choose one of .*'centred'"),
        ({"ridge": 0.0}, "ridge must be above 0, not 0.0"),
        ({"ridge": np.inf}, "ridge must be above 0, not inf"),
    ],
)
def test_what_cannot_be_solved_is_refused(options, words):
    moments = Moments(2, 3)
    moments.add(np.eye(2), np.ones((2, 3)))
    with pytest.raises(ValueError, match=words):
        solve_targets(moments, rank=1, **options)


def test_iteration_finds_the_leading_directions(monkeypatch):
    monkeypatch.setattr(calibrate_solve, "_EXACT", 10)
    half = DRAWS.normal(size=(200, 120)) * np.geomspace(1, 1e-3, 120)
    matrix = half @ half.T
    vectors, values = leading_directions(matrix, 12)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1][:12], rtol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-9)
    assert np.trace(vectors.T @ matrix @ vectors) == pytest.approx(values.sum())


def test_more_neurons_or_fewer_than_inputs_and_samples_that_do_not_span():
    moments = Moments(D)
    moments.add(X[:5])
    for neurons, rank in ((3, 3), (F, 4)):
        found = solve_sums(moments, W[:neurons], B[:neurons], rank=rank, ridge=1e-9)
        expected = (X[:5] @ W.T + B)[:, :neurons]
        np.testing.assert_allclose(found.scores(jnp.asarray(X[:5])), expected, rtol=1e-3, atol=1e-3)


def test_samples_that_are_all_alike():
    moments = Moments(D)
    moments.add(np.repeat(X[:1], 4, axis=0))
    found = solve_sums(moments, W, B, rank=2)
    np.testing.assert_allclose(found.scores(jnp.asarray(X[0])), X[0] @ W.T + B, rtol=1e-4, atol=1e-4)
