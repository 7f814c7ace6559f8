from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.evolve.chain import accepts, choose


@pytest.mark.parametrize(
    ("rise", "temperature", "uniform", "expected"),
    [
        (-1.0, 1e-3, 1.0, True),
        (0.0, 1e-3, 0.999, True),
        (1e-3, 1e-3, 0.36, True),
        (1e-3, 1e-3, 0.38, False),
        (1.0, 1e-30, 1e-30, False),
        (-1e-9, 0.0, 1.0, True),
        (0.0, 0.0, 1e-9, False),
        (1e-9, 0.0, 1e-9, False),
        (np.nan, 1.0, 1e-9, False),
        (np.nan, 0.0, 1e-9, False),
        (np.inf, 1.0, 1e-9, False),
    ],
)
def test_acceptance(rise, temperature, uniform, expected):
    assert bool(accepts(jnp.asarray(rise), jnp.asarray(temperature), jnp.log(uniform))) is expected


def test_acceptance_has_the_metropolis_probability():
    uniform = (jnp.arange(100_000) + 0.5) / 100_000
    share = accepts(jnp.asarray(0.02), jnp.asarray(0.01), jnp.log(uniform)).mean()
    np.testing.assert_allclose(share, np.exp(-2), atol=2e-5)


def test_choose_takes_leading_axes():
    chosen = choose(jnp.asarray([True, False]), jnp.ones((2, 3)), jnp.zeros((2, 3)))
    np.testing.assert_array_equal(chosen, [[1, 1, 1], [0, 0, 0]])
