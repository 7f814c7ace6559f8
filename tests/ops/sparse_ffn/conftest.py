"""Fixtures of the sparse FFN's tests."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.sparse_ffn import FFNWeights


@pytest.fixture
def ffn() -> Callable[..., FFNWeights]:
    """Random weights of f neurons of width d, gated and with biases or plain."""

    def make(f: int, d: int, *, full: bool = False, dtype=jnp.float32) -> FFNWeights:
        draws = np.random.default_rng(f + d)

        def normal(*shape: int) -> jax.Array:
            return jnp.asarray(0.3 * draws.normal(size=shape), dtype)

        matrices = normal(f, d), normal(f, d)
        return (
            FFNWeights(*matrices, normal(f, d), normal(f), normal(f), normal(d))
            if full
            else FFNWeights(*matrices)
        )

    return make
