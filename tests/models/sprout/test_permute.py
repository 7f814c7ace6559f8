"""Neurons in another order compute the same, and co-activation finds the blocks that were hidden."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import DeepSets, SproutConfig, SproutFFN, SproutFFNConfig, SproutLM
from sparsejax.models.sprout.permute import layer_strengths, permute_neurons
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order
from tests.draws import normal

D, F, BLOCK = 8, 24, 4
INPUTS = normal(1, 6, D)
ORDER = np.random.default_rng(0).permutation(F)


def ffn_of(**options):
    config = SproutFFNConfig(D, F, block_size=BLOCK, router_rank=3, router_init="random", **options)
    ffn = SproutFFN(config)
    params = jax.jit(ffn.init)(jax.random.key(0), INPUTS)["params"]
    if options.get("use_bias"):
        params["b_in"] = jnp.linspace(-0.1, 0.1, F)
    return ffn, jax.tree.map(lambda leaf: 10 * leaf, params)


@partial(jax.jit, static_argnums=(0, 2))
def outputs(ffn, params, top_k=None):
    return ffn.apply({"params": params}, INPUTS, top_k=top_k)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("top_k", [None, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"router": "linear", "use_bias": True},
        {"router": "mlp"},
        {"router": "low_rank"},
        {"deep_sets": DeepSets(4, 6)},
    ],
    ids=["linear", "mlp", "low_rank", "deep_sets"],
)
def test_outputs_stay(options, top_k):
    ffn, params = ffn_of(**options)
    moved = permute_neurons(params, ORDER)
    assert not np.array_equal(moved["w_in"], params["w_in"])
    before, after = (outputs(ffn, each, top_k) for each in (params, moved))
    close(after, before)


def test_a_block_router_stays_exact_where_whole_blocks_move():
    ffn, params = ffn_of(router="block")
    order = np.arange(F).reshape(-1, BLOCK)[::-1].ravel()
    moved = permute_neurons(params, order)
    before, after = (outputs(ffn, each, 8) for each in (params, moved))
    close(after, before)


def test_a_block_router_has_the_mean_of_its_neurons_columns_otherwise():
    ffn, params = ffn_of(router="block")
    moved = permute_neurons(params, ORDER)
    kernel = np.asarray(params["router"]["kernel"])
    expected = np.repeat(kernel, BLOCK, axis=1)[:, ORDER].reshape(D, -1, BLOCK).mean(axis=-1)
    np.testing.assert_allclose(moved["router"]["kernel"], expected, rtol=1e-6)
    before, after = (outputs(ffn, each) for each in (params, moved))
    close(after, before)


def test_logits_of_a_language_model_stay():
    config = SproutConfig(
        vocab_size=11, d_model=D, d_ff=F, n_heads=2, n_layers=2, max_len=4, dropout=0.0, block_size=BLOCK
    )
    model, tokens = SproutLM(config), jnp.asarray([[1, 2, 3], [4, 5, 6]])
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    orders = [coactivation_order(layer, BLOCK) for layer in layer_strengths(model, params, tokens)]
    moved = permute_neurons(params, orders)
    logits = jax.jit(lambda each: model.apply({"params": each}, tokens, top_k=7).logits)
    before, after = logits(params), logits(moved)
    close(after, before)


def test_a_block_oracle_keeps_more_of_the_output():
    """Neurons that share directions, shuffled: once together, the best blocks give more of the output."""
    rng = np.random.default_rng(1)
    groups, size, d = 8, 4, 16
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0][:groups]
    w_in = np.repeat(directions, size, axis=0) + 0.05 * rng.normal(size=(groups * size, d))
    mixed = rng.permutation(len(w_in))
    params = {
        "w_in": jnp.asarray(w_in[mixed], jnp.float32),
        "w_out": jnp.asarray(rng.normal(size=w_in.shape), jnp.float32),
        "router": {"kernel": jnp.zeros((d, len(w_in)))},
    }
    inputs = jnp.asarray(rng.normal(size=(200, d)), jnp.float32)

    def cosine(params):
        values = jax.nn.gelu(inputs @ params["w_in"].T, approximate=False)
        sums = np.asarray(jnp.abs(values)).reshape(200, groups, size).sum(axis=-1)
        best = np.repeat(sums >= np.sort(sums, axis=-1)[:, -2:-1], size, axis=-1)
        sparse, dense = (values * best) @ params["w_out"], values @ params["w_out"]
        return float((sparse * dense).sum() / jnp.linalg.norm(sparse) / jnp.linalg.norm(dense))

    order = coactivation_order(jnp.abs(jax.nn.gelu(inputs @ params["w_in"].T, approximate=False)), size)
    before, after = cosine(params), cosine(permute_neurons(params, order))
    assert before < 0.75
    assert after > before + 0.1


def test_bad_orders_are_refused():
    _, params = ffn_of()
    with pytest.raises(ValueError, match="no permutation of its 24 neurons"):
        permute_neurons(params, np.zeros(F, int))
    with pytest.raises(ValueError, match="there are 1 orders; the network has 2 layers"):
        permute_neurons({"layer_0": {"ffn": params}, "layer_1": {"ffn": params}}, [ORDER])
