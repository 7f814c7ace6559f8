"""The manifold mixer: when it acts, gathered and masked alike, and in bounded memory."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import SproutFFN, SproutFFNConfig, token_chunks
from sparsejax.models.sprout.mixer import selected_mean
from tests.models.sprout import quick

CONFIG = SproutFFNConfig(d_model=4, d_ff=10, block_size=4, mixer_hidden=4, dropout=0.0)
INPUTS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(lambda: SproutFFN(CONFIG).init(jax.random.key(0), INPUTS))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def call(params, top_k, **options):
    static = (*sorted(options.items()),)
    if isinstance(top_k, jax.Array):
        return _call(params, top_k, static)
    return _call(params, None, (*static, ("top_k", top_k)))


@partial(quick.jit, static_argnums=2)
def _call(params, traced, static):
    given = {} if traced is None else {"top_k": traced}
    return SproutFFN(CONFIG).apply({"params": params}, INPUTS, **dict(static), **given)


def test_published_it_acts_in_sparse_training_only(params):
    plain = call(params, 5, mixer="off")
    np.testing.assert_array_equal(call(params, 5), plain)
    np.testing.assert_array_equal(call(params, 5, mixer="off", train=True), plain)
    mixed = call(params, 5, mixer="always")
    np.testing.assert_array_equal(call(params, 5, train=True), mixed)
    assert np.abs(mixed - plain).max() > 0.1
    np.testing.assert_array_equal(call(params, None, mixer="always"), call(params, None))


def test_gathered_masked_and_gated_it_is_one_function(params):
    expected = call(params, 5, mixer="always")
    np.testing.assert_allclose(call(params, jnp.asarray(5), mixer="always"), expected, atol=1e-5)
    gated = call(params, 5, mixer="always", straight_through=True)
    np.testing.assert_allclose(gated, expected, atol=1e-5)
    assert not np.asarray(call(params, 0, mixer="always")).any()


def test_a_last_block_that_is_shorter_counts_its_own_neurons_only(params):
    found = call(params, 8, mixer="always", path="block")
    expected = call(params, jnp.asarray(8), mixer="always", path="block")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_means_are_of_the_selected():
    features = jnp.asarray([[[1.0], [3.0], [8.0]]])
    assert selected_mean(features, None).tolist() == [[[4.0]]]
    assert selected_mean(features, jnp.asarray([[1.0, 1.0, 0.0]])).tolist() == [[[2.0]]]
    assert selected_mean(features, jnp.zeros((1, 3), bool)).tolist() == [[[0.0]]]


def test_chunks_of_tokens_change_neither_outputs_nor_gradients(params, monkeypatch):
    def loss(params):
        outputs = SproutFFN(CONFIG).apply({"params": params}, INPUTS, top_k=5, mixer="always")
        return (outputs * INPUTS).sum(), outputs

    (_, whole), gradients = quick.jit(jax.value_and_grad(loss, has_aux=True))(params)
    monkeypatch.setattr(token_chunks, "VALUES", 4 * 5 * 8)  # four of the six tokens, then two
    (_, cut), again = quick.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(cut, whole, atol=1e-6, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)
