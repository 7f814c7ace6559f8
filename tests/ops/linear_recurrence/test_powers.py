"""Phases of lambda^n stay exact to 1e-5 up to n = 2^20."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.linear_recurrence import Decay
from sparsejax.ops.linear_recurrence.powers import phases, powers

EXPONENTS = np.array([0, 1, 2, 1023, 1024, 1025, 131_071, 1_000_003, 2**20 - 1], np.int32)


def _distance(angle, exact):
    """Radians between two angles, whole turns apart being none."""
    return np.abs(np.angle(np.exp(1j * (np.asarray(angle, np.float64) - exact)))).max()


@pytest.mark.parametrize("wrap", [jax.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 2 * np.pi, 30.0])
def test_float32_phases(scale, wrap):
    frequency = (np.random.default_rng(0).uniform(-scale, scale, 200)).astype(np.float32)
    angle = wrap(phases)(jnp.asarray(frequency), jnp.asarray(EXPONENTS))
    assert np.abs(angle).max() <= np.pi + 1e-6
    assert _distance(angle, EXPONENTS[:, None] * frequency.astype(np.float64)) < 1e-5


def test_frequencies_known_while_compiling_keep_their_precision():
    frequency = np.linspace(-3, 3, 50, dtype=np.float32)
    angle = jax.jit(lambda n: phases(jnp.asarray(frequency), n))(jnp.asarray(EXPONENTS))
    assert _distance(angle, EXPONENTS[:, None] * frequency.astype(np.float64)) < 1e-5


def test_the_naive_product_would_fail():
    frequency = np.linspace(1, 3, 50, dtype=np.float32)
    naive = EXPONENTS[:, None].astype(np.float32) * frequency
    assert _distance(naive, EXPONENTS[:, None] * frequency.astype(np.float64)) > 0.01


def test_float64_powers():
    with jax.enable_x64(True):
        log_factor = np.log(0.999999) + 1j * np.linspace(-6, 6, 11)
        real, imaginary = powers(Decay(*map(jnp.asarray, (log_factor.real, log_factor.imag))), EXPONENTS)
        wanted = np.exp(EXPONENTS[:, None] * log_factor)
        np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imaginary), wanted, atol=2e-9)


def test_gradient_is_that_of_the_power():
    decay = Decay(jnp.log(jnp.array([0.9, 0.5])), jnp.array([0.3, -2.0]))

    def of(log_magnitude, frequency):
        return powers(Decay(log_magnitude, frequency), jnp.array([3]))[0].sum()

    lam = np.exp(np.asarray(decay[0], np.float64) + 1j * np.asarray(decay[1], np.float64))
    d_log, d_frequency = jax.grad(of, argnums=(0, 1))(*decay)
    np.testing.assert_allclose(d_log, (3 * lam**3).real, rtol=1e-5)
    np.testing.assert_allclose(d_frequency, (3j * lam**3).real, rtol=1e-5)


def test_a_factor_of_zero_has_power_one_only_at_exponent_zero():
    real, imaginary = powers(Decay(jnp.array([-jnp.inf]), jnp.zeros(1)), jnp.arange(3))
    assert real[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert not imaginary.any()
