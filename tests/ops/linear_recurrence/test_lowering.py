"""The kernels lower for hardware that this machine need not have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct

from sparsejax.ops.linear_recurrence import Decay, linear_recurrence
from tests.ops.lowering import TARGETS, kernels_in


def _arguments(shape, *, selective, dtype):
    batch, length, width = shape
    drive = (ShapeDtypeStruct(shape, dtype),) * 2
    decay = Decay(*(ShapeDtypeStruct(shape if selective else (width,), jnp.float32),) * 2)
    initial = (ShapeDtypeStruct((batch, width), jnp.float32),) * 2
    return drive, decay, initial, ShapeDtypeStruct((batch, length), jnp.bool_)


def _value(drive, decay, initial, reset):
    return linear_recurrence(drive, decay, initial_state=initial, reset=reset, backend="pallas")


def _value_without_reset(drive, decay, initial, reset):
    del reset
    return linear_recurrence(drive, decay, initial_state=initial, backend="pallas")


def _loss(drive, decay, initial, reset):
    states, final = linear_recurrence(drive, decay, initial_state=initial, reset=reset, backend="pallas")
    return sum(part.astype(jnp.float32).sum() for part in (*states, *final))


CASES = [
    ((8, 16_384, 1024), False, jnp.float32),
    ((2, 1000, 192), True, jnp.bfloat16),
    ((1, 7, 5), False, jnp.bfloat16),
]


@pytest.mark.parametrize("platform", TARGETS)
@pytest.mark.parametrize(("shape", "selective", "dtype"), CASES)
def test_value_and_gradient_hold_kernels(platform, shape, selective, dtype):
    arguments = _arguments(shape, selective=selective, dtype=dtype)
    split = 2 if platform == "gpu" and shape[1] > 200 else 1  # ends of the spans, then the states
    for function in (_value, _value_without_reset):
        assert kernels_in(platform, function, *arguments) == split
    assert kernels_in(platform, jax.grad(_loss, argnums=(0, 1, 2)), *arguments) == 2 * split
