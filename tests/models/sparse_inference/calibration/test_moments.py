"""Sums of products: exact about the mean, however far that is, and whatever the batches are."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.moments import Moments


def test_products_about_a_distant_mean():
    draws = np.random.default_rng(0)
    x = (draws.normal(size=(2500, 4)) + 1e4).astype(np.float32)
    y = (draws.normal(size=(2500, 3)) - 1e4).astype(np.float32)
    moments = Moments(4, 3)
    for start, stop in ((0, 3), (3, 3), (3, 2500)):
        moments.add(x[start:stop], y[start:stop])
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    centred_x, centred_y = wide_x - wide_x.mean(axis=0), wide_y - wide_y.mean(axis=0)
    assert moments.count == 2500
    np.testing.assert_allclose(moments.mean_x, wide_x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.mean_y, wide_y.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.products(), centred_x.T @ centred_x, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(moments.products_with_y(), centred_x.T @ centred_y, rtol=1e-9, atol=1e-8)


def test_without_targets_they_are_the_inputs():
    moments = Moments(2)
    moments.add(np.array([[1.0, 2.0], [3.0, 7.0]], np.float32))
    np.testing.assert_array_equal(moments.products_with_y(), moments.products())
    np.testing.assert_array_equal(moments.mean_y, moments.mean_x)


def test_no_samples():
    with pytest.raises(ValueError, match="no samples"):
        Moments(2).products()
