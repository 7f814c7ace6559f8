"""Routers: what they start from, and the block router that `path="block"` amounts to."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import SproutConfig, SproutFFN, SproutFFNConfig, SproutLM, with_block_router
from sparsejax.models.sprout.routing import low_rank_basis, pooled
from tests.models.sprout import quick

CONFIG = SproutFFNConfig(d_model=6, d_ff=16, block_size=4, router_rank=3)
INPUTS = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def initial(config):
    return quick.jit(lambda: SproutFFN(config).init(jax.random.key(0), INPUTS)["params"])()


def test_routers_start_from_the_input_weights():
    for router in ("linear", "mlp"):
        params = initial(dataclasses.replace(CONFIG, router=router))
        np.testing.assert_array_equal(params["router"]["kernel"], params["w_in"].T)
    params = initial(dataclasses.replace(CONFIG, router="mlp_block"))
    means = np.asarray(params["w_in"]).reshape(4, 4, 6).mean(axis=1)
    np.testing.assert_allclose(params["router"]["kernel"], means.T, atol=1e-7)


def test_a_low_rank_router_starts_as_the_best_approximation():
    params = initial(dataclasses.replace(CONFIG, router="low_rank"))
    product = params["router"]["down_kernel"] @ params["router"]["kernel"]
    left, values, right = np.linalg.svd(np.asarray(params["w_in"]).T, full_matrices=False)
    np.testing.assert_allclose(product, (left[:, :3] * values[:3]) @ right[:3], atol=1e-6)


def test_random_ones_do_not_and_are_small():
    params = initial(dataclasses.replace(CONFIG, router="low_rank", router_init="random"))
    spread = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params["router"])]).std()
    assert 0.015 < spread < 0.025


def test_a_basis_beyond_the_width_is_padded():
    basis = low_rank_basis(jnp.eye(3), 5)
    assert basis.shape == (3, 5) and not np.asarray(basis[:, 3:]).any()


def test_means_over_blocks():
    np.testing.assert_allclose(pooled(jnp.arange(5.0)[None], 2), [[0.5, 2.5, 4.0]])


@pytest.mark.parametrize("tokens", [5, 20], ids="{} tokens".format)
@pytest.mark.parametrize("router", ["linear", "mlp", "low_rank"])
def test_the_block_router_is_what_the_block_path_computes(router, tokens):
    inputs = jax.random.normal(jax.random.key(3), (tokens, CONFIG.d_model))
    config = dataclasses.replace(CONFIG, router=router, router_init="random")
    params = jax.tree.map(lambda leaf: 20 * leaf, initial(config))
    of_blocks, changed = with_block_router(config, params)

    @quick.jit
    def both(params, changed):
        options = {"top_k": 8, "mutable": ["intermediates"]}
        before = SproutFFN(config).apply({"params": params}, inputs, path="block", **options)
        after = SproutFFN(of_blocks).apply({"params": changed}, inputs, path="masked", **options)
        return before, after

    (before, seen), (after, seen_after) = both(params, changed)
    scores, scores_after = (found["intermediates"]["scores"][0] for found in (seen, seen_after))
    if router == "low_rank" or tokens < 16:  # two matrices become one; of few tokens the scores are pooled
        np.testing.assert_allclose(scores_after, scores, atol=1e-5, rtol=1e-5)
    else:
        np.testing.assert_array_equal(scores_after, scores)
    np.testing.assert_allclose(after, before, atol=1e-6, rtol=1e-5)
    assert changed["router"]["kernel"].shape == (6, 4)
    with pytest.raises(ValueError, match="scores blocks already"):
        with_block_router(of_blocks, changed)


def test_the_routers_of_a_whole_model():
    sizes = {"vocab_size": 7, "n_heads": 2, "n_layers": 2, "max_len": 4}
    config = SproutConfig(d_model=6, d_ff=16, block_size=4, **sizes)
    tokens = jnp.asarray([[0, 3, 6]])
    shapes = jax.eval_shape(lambda: SproutLM(config).init(jax.random.key(0), tokens)["params"])
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    changed_config, changed = with_block_router(config, params)
    assert changed_config == dataclasses.replace(config, router="block")
    needed = jax.eval_shape(lambda: SproutLM(changed_config).init(jax.random.key(0), tokens)["params"])
    assert jax.tree.map(jnp.shape, changed) == jax.tree.map(jnp.shape, needed)
    assert params["layer_0"]["ffn"]["router"]["kernel"].shape == (6, 16)


def test_neurons_that_do_not_divide_into_blocks_are_refused():
    config = SproutFFNConfig(d_model=6, d_ff=18, block_size=4)
    with pytest.raises(ValueError, match="do not divide into blocks of 4"):
        with_block_router(config, {"router": {"kernel": jnp.ones((6, 18))}})
