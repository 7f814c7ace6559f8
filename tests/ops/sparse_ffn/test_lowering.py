"""The kernels lower for hardware that this machine need not have."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct

from sparsejax.ops.sparse_ffn import ACTIVATIONS, FFNWeights, sparse_ffn
from tests.ops.lowering import TARGETS, kernels_in


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize(
    ("activation", "dtype", "gated"),
    [(name, jnp.bfloat16, False) for name in ACTIVATIONS] + [("gelu", jnp.float32, True)],
)
def test_a_module_holds_the_kernel(platform, activation, dtype, gated):
    d, f = 256, 1024
    shapes = [(f, d), (f, d), *([(f, d), (f,), (f,), (d,)] if gated else [])]

    def run(inputs, scores, *parts):
        options = {"block_size": 64, "activation": activation, "backend": "pallas"}
        return sparse_ffn(inputs, FFNWeights(*parts), scores, 256, **options)

    arguments = [
        ShapeDtypeStruct((32, d), dtype),
        ShapeDtypeStruct((32, f // 64), jnp.float32),
        *(ShapeDtypeStruct(shape, dtype) for shape in shapes),
    ]
    assert kernels_in(platform, run, *arguments) == 1
