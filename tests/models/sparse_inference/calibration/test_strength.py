"""Strengths of neurons, against NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.strength import strengths
from tests.models.sparse_inference.calibration_data import made


def test_both_measures():
    inputs, weights = made(gated=True, samples=6)
    gates = inputs @ np.asarray(weights.w_gate).T + np.asarray(weights.b_gate)
    values = np.abs(np.maximum(gates, 0) * (inputs @ np.asarray(weights.w_in).T))
    rows = jnp.asarray(inputs).reshape(2, 3, -1)
    found = strengths(rows, weights, activation="reglu")
    np.testing.assert_allclose(found.reshape(6, -1), values, atol=1e-5)
    found = strengths(rows, weights, activation="reglu", by="contribution")
    norms = np.linalg.norm(np.asarray(weights.w_out), axis=1)
    np.testing.assert_allclose(found.reshape(6, -1), values * norms, atol=1e-5)


def test_another_width_is_refused():
    _, weights = made(samples=1)
    with pytest.raises(ValueError, match=r"\(\.\.\., 24\) is needed"):
        strengths(jnp.ones(5), weights, activation="relu")
