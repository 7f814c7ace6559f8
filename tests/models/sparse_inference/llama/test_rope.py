"""Rotary positions against complex numbers, and what is refused."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.llama.rope import (
    RopeConfig,
    frequencies,
    rotate,
    rotation,
)
from tests.models.sparse_inference.llama_files import interleave_heads

HEADS = np.random.default_rng(0).normal(size=(2, 5, 3, 10)).astype(np.float32)


def test_pairs_turn_as_complex_numbers():
    positions = np.arange(5) + np.array([[0], [1000]])
    turn = rotation(jnp.asarray(positions), RopeConfig(8))
    angle = positions[..., None, None] * frequencies(RopeConfig(8))
    pairs = HEADS[..., 0:8:2] + 1j * HEADS[..., 1:8:2]
    expected = pairs * np.exp(1j * angle)
    found = np.asarray(rotate(jnp.asarray(HEADS), turn, interleaved=True))
    np.testing.assert_allclose(found[..., 0:8:2] + 1j * found[..., 1:8:2], expected, atol=3e-4)
    np.testing.assert_array_equal(found[..., 8:], HEADS[..., 8:])


def test_interleaved_heads_are_the_half_split_ones_in_another_order():
    weight = np.random.default_rng(1).normal(size=(24, 7)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(1, 4, 7)).astype(np.float32)
    turn = rotation(jnp.arange(4)[None], RopeConfig(8))

    def heads(matrix, interleaved):
        split = jnp.asarray((inputs @ matrix.T).reshape(1, 4, 3, 8))
        return np.asarray(rotate(split, turn, interleaved=interleaved))

    half, mixed = heads(weight, False), heads(interleave_heads(weight, 3), True)
    np.testing.assert_allclose(mixed[..., ::2], half[..., :4], atol=1e-6)
    np.testing.assert_allclose(mixed[..., 1::2], half[..., 4:], atol=1e-6)


def test_yarn_keeps_fast_pairs_and_divides_slow_ones():
    config = RopeConfig(64, scaling="yarn", factor=8.0, original_context=2048)
    ratio = frequencies(RopeConfig(64)) / frequencies(config)
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8)
    assert (np.diff(ratio) >= 0).all()
    assert config.amplitude == pytest.approx(1 + 0.1 * np.log(8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension": 7}, "dimension 7 is not an even number"),
        ({"dimension": 8, "scaling": "ntk"}, "RoPE scaling 'ntk' is not one of"),
        ({"dimension": 8, "base": 0.0}, "RoPE base must be above 0"),
        ({"dimension": 8, "scaling": "yarn", "factor": 2.0}, "'yarn' needs original_context"),
    ],
)
def test_what_turns_nothing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RopeConfig(**fields)
