"""The vectorising sine is right to the last bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.fast_sine import fast_sine


@pytest.mark.parametrize(("quarter_turns", "exact"), [(0, np.sin), (1, np.cos)])
def test_fast_sine_is_right_to_the_last_bits(quarter_turns, exact):
    sine = jax.jit(lambda x: fast_sine(x, quarter_turns))

    def error(x):
        return np.abs(np.asarray(sine(x), np.float64) - exact(x.astype(np.float64))).max()

    draws = np.random.default_rng(0)
    for largest, tolerance in ((1e-3, 1.5e-7), (2, 1.5e-7), (100, 1.5e-7), (3000, 1.5e-7), (20_000, 2e-6)):
        assert error(draws.uniform(-largest, largest, 20_000).astype(np.float32)) < tolerance
    assert error((np.arange(-40, 41) * np.pi / 2).astype(np.float32)) < 1.5e-7
    assert error(np.array([1e6, -1e6], np.float32)) < 0.06
    assert np.abs(sine(np.array([1e9, -1e20, 3e38], np.float32))).max() <= 1
    assert np.isnan(sine(np.array([np.nan, np.inf], np.float32))).all()


def test_fast_sine_has_the_right_gradient():
    x = np.linspace(-50, 50, 5001, dtype=np.float32)
    gradient = jax.vmap(jax.grad(fast_sine))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, np.cos(x.astype(np.float64)), atol=1e-6)
