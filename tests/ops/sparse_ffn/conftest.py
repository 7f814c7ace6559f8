"""Fixtures of the sparse FFN's tests."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from sparsejax.ops.sparse_ffn import FFNWeights


@pytest.fixture
def ffn() -> Callable[..., FFNWeights]:
    """Random weights of f neurons of width d, gated and with biases or plain."""

    def make(f: int, d: int, *, full: bool = False, dtype=jnp.float32) -> FFNWeights:
        keys = iter(jax.random.split(jax.random.key(f + d), 6))

        def normal(*shape: int) -> jax.Array:
            return (0.3 * jax.random.normal(next(keys), shape)).astype(dtype)

        matrices = normal(f, d), normal(f, d)
        return (
            FFNWeights(*matrices, normal(f, d), normal(f), normal(f), normal(d))
            if full
            else FFNWeights(*matrices)
        )

    return make
