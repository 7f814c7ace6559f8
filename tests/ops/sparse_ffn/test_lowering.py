"""The kernels lower for hardware that this machine need not have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct
from jax.export import DisabledSafetyCheck

from sparsejax.ops.backends import target_platform
from sparsejax.ops.sparse_ffn import ACTIVATIONS, FFNWeights, sparse_ffn

TARGETS = {"tpu": ("tpu", "tpu_custom_call"), "gpu": ("cuda", "__gpu$xla.gpu.triton")}


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize(
    ("activation", "dtype", "gated"),
    [(name, jnp.bfloat16, False) for name in ACTIVATIONS] + [("gelu", jnp.float32, True)],
)
def test_a_module_holds_the_kernel(platform, activation, dtype, gated):
    lowered_for, call = TARGETS[platform]
    d, f = 256, 1024
    shapes = [(f, d), (f, d), *([(f, d), (f,), (f,), (d,)] if gated else [])]

    def run(inputs, scores, *parts):
        options = {"block_size": 64, "activation": activation, "backend": "pallas"}
        return sparse_ffn(inputs, FFNWeights(*parts), scores, 256, **options)

    with target_platform(platform):
        exported = jax.export.export(
            jax.jit(run),
            platforms=[lowered_for],
            disabled_checks=[DisabledSafetyCheck.custom_call(call)],
        )(
            ShapeDtypeStruct((32, d), dtype),
            ShapeDtypeStruct((32, f // 64), jnp.float32),
            *(ShapeDtypeStruct(shape, dtype) for shape in shapes),
        )
    assert exported.mlir_module().count(f"custom_call @{call}") == 1
