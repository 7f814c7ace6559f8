"""Padded tokens are seen by nobody, and a sequence of nothing else gives zeros."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.attention import attention_weights, padding_mask, weighted_values


def test_masks_join():
    ignored = jnp.asarray([[False, True, False]])
    kept = jnp.asarray([[1, 1, 0]])
    assert padding_mask() is None
    assert padding_mask(ignored).tolist() == [[True, False, True]]
    assert padding_mask(None, kept).tolist() == [[True, True, False]]
    assert padding_mask(ignored, kept).tolist() == [[True, False, False]]


def test_weights_are_those_of_the_visible_tokens_alone():
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 1, 4, 6)).astype(np.float32)
    visible = np.array([[True, False, True, True]])
    found = np.asarray(attention_weights(queries, keys, jnp.asarray(visible), num_heads=2))
    alone = np.asarray(attention_weights(queries, keys[:, visible[0]], None, num_heads=2))
    np.testing.assert_allclose(found[..., visible[0]], alone, atol=1e-7)
    assert not found[..., 1].any()


def test_nothing_visible_gives_zeros_and_gradients_without_nan():
    rng = np.random.default_rng(1)
    queries, keys, values = (jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32) for _ in range(3))
    visible = jnp.asarray([[False] * 3, [True, False, False]])

    def attend(queries, keys, values):
        return weighted_values(attention_weights(queries, keys, visible, num_heads=2), values)

    outputs, pull = jax.vjp(attend, queries, keys, values)
    assert not np.asarray(outputs[0]).any()
    np.testing.assert_allclose(outputs[1], np.broadcast_to(values[1, :1], (3, 4)), rtol=1e-6)
    for gradient in pull(jnp.ones_like(outputs)):
        assert np.isfinite(gradient).all() and not np.asarray(gradient[0]).any()


def test_scores_of_16_bit_numbers_are_float32():
    queries = jnp.ones((1, 2, 4), jnp.bfloat16)
    assert attention_weights(queries, queries, None, num_heads=2).dtype == jnp.float32
