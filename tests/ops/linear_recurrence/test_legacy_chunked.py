"""The anti-causal chunks as they were shipped."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.linear_recurrence import Decay
from sparsejax.ops.linear_recurrence.legacy_chunked import anticausal_chunked
from tests import golden


@pytest.mark.golden("op_evolution")
@pytest.mark.parametrize("length", [1, 7, 64, 129])
def test_golden_outputs(length, evaluate):
    arrays = golden.arrays("ten", "op_evolution")
    decay = Decay(jax.nn.log_sigmoid(arrays["log_decay"]), jnp.asarray(arrays["frequency"]))
    drive = tuple(jnp.asarray(arrays[f"T{length}/beta_{part}"]) for part in "ri")
    for found, part in zip(
        evaluate(partial(anticausal_chunked, chunk_size=16), drive, decay), "ri", strict=True
    ):
        wanted = arrays[f"T{length}/chunked_legacy_{part}"]
        assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_it_looks_ahead_inside_the_chunk_and_no_further():
    drive = jnp.zeros((1, 12, 1)).at[0, 6, 0].set(1.0), jnp.zeros((1, 12, 1))
    real, _ = anticausal_chunked(drive, Decay(jnp.log(jnp.array([0.5])), jnp.zeros(1)), 4)
    np.testing.assert_allclose(real[0, :, 0], [0, 0, 0, 0, 0.25, 0.5, 1, 0, 0, 0, 0, 0])


def test_chunks_of_one_step_add_up():
    drive = jnp.ones((1, 4, 1)), jnp.zeros((1, 4, 1))
    real, _ = anticausal_chunked(drive, Decay(jnp.log(jnp.array([0.5])), jnp.zeros(1)), 1)
    assert real[0, :, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_no_step_and_no_chunk():
    empty = jnp.zeros((1, 0, 2))
    assert anticausal_chunked((empty, empty), Decay(jnp.zeros(2), jnp.zeros(2)), 4)[0].shape == (1, 0, 2)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        anticausal_chunked((empty, empty), Decay(jnp.zeros(2), jnp.zeros(2)), 0)
