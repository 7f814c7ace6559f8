"""Intervals over seeds."""

from __future__ import annotations

import numpy as np

from sparsejax.models.ultra_sparse.report import summarise
from sparsejax.training.metrics import mean_interval


def test_interval_is_the_report_s_row_by_row():
    values = np.random.default_rng(0).normal(size=(5, 7))
    found = mean_interval(values)
    expected = [summarise(row) for row in values]
    np.testing.assert_allclose(found.mean, [row.mean for row in expected], rtol=1e-14)
    np.testing.assert_allclose(found.low, [row.low for row in expected], rtol=1e-12)
    np.testing.assert_allclose(found.high, [row.high for row in expected], rtol=1e-12)


def test_interval_holds_the_true_mean_95_times_in_100():
    found = mean_interval(np.random.default_rng(1).normal(size=(20_000, 4)))
    assert abs(np.mean((found.low < 0) & (found.high > 0)) - 0.95) < 0.005


def test_one_seed_and_infinite_losses_have_no_interval():
    assert np.isnan(mean_interval([[1.0]]).low).all()
    assert mean_interval([[1.0, np.inf]]).mean[0] == np.inf
