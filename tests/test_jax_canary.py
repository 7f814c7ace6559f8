"""The installed jax computes what our models need: some releases did not, silently."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 31, 64, 100])
@pytest.mark.parametrize("width", [3, 16, 33, 100, 128, 256])
def test_jitted_vmapped_matvec_reduce_equals_numpy(rows, width):
    """jax 0.10.2 on CPU fails this at some sizes; the pins exclude it."""
    draws = np.random.default_rng(rows * 1000 + width)
    matrices = draws.standard_normal((5, rows, width)).astype(np.float32)
    vectors = draws.standard_normal((5, width)).astype(np.float32)
    found = jax.jit(jax.vmap(lambda m, v: jnp.sum(jnp.tanh(m @ v) ** 2)))(matrices, vectors)
    exact = np.einsum("brw,bw->br", matrices.astype(np.float64), vectors)
    np.testing.assert_allclose(found, np.sum(np.tanh(exact) ** 2, axis=1), rtol=2e-5, atol=1e-5)
