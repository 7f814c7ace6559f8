"""The fit is that of reduced-rank ridge regression, by samples as by inputs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.compensation import (
    compensation,
    compensation_errors,
    fit_compensation,
)


def _data(samples, width, outputs, seed=0):
    draws = np.random.default_rng(seed)
    inputs = draws.normal(size=(samples, width)) + 1
    mixing = draws.normal(size=(width, 3)) @ draws.normal(size=(3, outputs))
    return inputs, inputs @ mixing + 0.1 * draws.normal(size=(samples, outputs)) + 2


@pytest.mark.parametrize(("samples", "width", "outputs"), [(60, 8, 5), (12, 20, 30), (12, 20, 5)], ids=str)
def test_the_fit_is_the_ridge_solution_cut_to_its_first_directions(samples, width, outputs):
    inputs, dropped = _data(samples, width, outputs)
    fitted = fit_compensation(inputs, dropped, rank=3, ridge=1e-2)
    x, y = inputs - inputs.mean(axis=0), dropped - dropped.mean(axis=0)
    weight = 1e-2 * (x * x).sum() / width
    ridge = np.linalg.solve(x.T @ x + weight * np.eye(width), x.T @ y)
    whole = np.concatenate([x, np.sqrt(weight) * np.eye(width)]) @ ridge
    directions = np.linalg.svd(whole)[2][:3].T
    wanted = x @ ridge @ directions @ directions.T + dropped.mean(axis=0)
    np.testing.assert_allclose(compensation(jnp.asarray(inputs, jnp.float32), fitted), wanted, atol=2e-4)
    assert fitted.u.shape == (outputs, 3) and fitted.v.shape == (3, width)


def test_rank_zero_fits_the_mean():
    inputs, dropped = _data(30, 6, 4)
    for rows in (30, 5):
        fitted = fit_compensation(inputs[:rows], dropped[:rows], rank=0)
        np.testing.assert_allclose(fitted.c, dropped[:rows].mean(axis=0), rtol=1e-5)


def test_more_directions_than_samples():
    inputs, dropped = _data(4, 20, 30)
    fitted = fit_compensation(inputs, dropped, rank=10, ridge=1e-9)
    np.testing.assert_allclose(compensation(jnp.asarray(inputs, jnp.float32), fitted), dropped, atol=1e-3)


def test_errors_with_and_without():
    inputs, dropped = _data(200, 8, 5)
    exact = 4 * dropped
    errors = compensation_errors(
        inputs[100:], dropped[100:], exact[100:], fit_compensation(inputs[:100], dropped[:100], rank=3)
    )
    assert errors.without == pytest.approx(0.25) and errors.with_it < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 6}, "rank must be 0 to 5, the narrower side, not 6"),
        ({"rank": -1}, "rank must be 0 to 5"),
        ({"ridge": 0.0}, "ridge must be above 0"),
        ({"dropped": np.ones((7, 5))}, "must be rows of the same samples"),
        ({"dropped": np.full((30, 5), np.nan)}, "they hold NaN"),
    ],
)
def test_refused(change, message):
    inputs, dropped = _data(30, 8, 5)
    with pytest.raises(ValueError, match=message):
        fit_compensation(**({"inputs": inputs, "dropped": dropped, "rank": 2} | change))
