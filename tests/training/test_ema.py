"""Averages of parameters against their definition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.training.ema import average_of, averaged


def test_the_average_is_that_of_its_definition():
    optimizer = optax.chain(optax.sgd(0.1), averaged(0.8))
    params = {"w": jnp.asarray([1.0, -2.0])}
    state = optimizer.init(params)
    expected, w = np.asarray([1.0, -2.0]), np.asarray([1.0, -2.0])
    for n in range(1, 60):
        gradients = {"w": jnp.asarray([float(n), 1.0])}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        w = w - 0.1 * np.asarray([n, 1.0])
        kept = min(0.8, n / (n + 9))
        expected = kept * expected + (1 - kept) * w
        np.testing.assert_allclose(average_of(state)["w"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5, atol=1e-6)
    assert int(state[1].steps) == 59


def test_what_is_no_average_is_refused():
    with pytest.raises(ValueError, match="at least 0 and below 1, not 1.0"):
        averaged(1.0)
    with pytest.raises(ValueError, match="follows no average"):
        average_of(optax.sgd(0.1).init({"w": jnp.zeros(1)}))
