"""The kernels lower for hardware that this machine need not have."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from sparsejax.ops.quantized import QuantizedFFN, quantized_matmul, sparse_quantized_ffn
from tests.ops.lowering import TARGETS, kernels_in


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize("name", ["q8_0", "q4_0", "q4_k", "q6_k"])
def test_products(matrix, platform, name):
    weights = matrix(name, 256, 512)
    for tokens in (1, 40):
        inputs = jnp.ones((tokens, 512), jnp.bfloat16)

        def run(inputs, weights):
            return quantized_matmul(inputs, weights, backend="pallas")

        assert kernels_in(platform, run, inputs, weights) == 1


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize("name", ["q4_k", "q6_k"])
def test_ffn(matrix, platform, name):
    w_out = matrix("q8_0" if name == "q4_k" else name, 256, 256, order="columns")
    weights = QuantizedFFN(matrix(name, 256, 512), w_out, matrix(name, 256, 512))

    def run(inputs, weights, tiles):
        return sparse_quantized_ffn(inputs, weights, tiles, backend="pallas")

    assert kernels_in(platform, run, jnp.ones(512), weights, jnp.zeros(3, jnp.int32)) == 3
