"""One feed-forward part: the same function by every path, whole blocks, gates with a gradient, biases."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
from sparsejax.models.sprout.ffn import per_layer, resolve_top_k
from tests.models.sprout import quick

CONFIG = SproutFFNConfig(d_model=6, d_ff=20, block_size=4, use_bias=True)
BLOCKS = SproutFFNConfig(d_model=6, d_ff=20, block_size=4, router="block")
INPUTS = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)


def params_of(config):
    """Random ones, biases too."""
    model = SproutFFN(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), INPUTS))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


@partial(quick.jit, static_argnums=(0, 2))
def called(config, params, options, top_k=None):
    given = {} if top_k is None else {"top_k": top_k}
    return SproutFFN(config).apply({"params": params}, INPUTS, method="routed", **dict(options), **given)


def call(config, params, top_k=None, **options):
    return called(config, params, (*sorted({**options, "top_k": top_k}.items()),))


def by_hand(params, mask):
    sums = (INPUTS @ np.asarray(params["w_in"]).T + np.asarray(params.get("b_in", 0.0))) * mask
    hidden = np.asarray(jax.nn.gelu(sums, approximate=False))
    return hidden @ np.asarray(params["w_out"]) + np.asarray(params.get("b_out", 0.0))


def test_masked_gathered_and_traced_are_the_published_function():
    params, top_k = params_of(CONFIG), 7
    scores = INPUTS @ np.asarray(params["router"]["kernel"])
    mask = np.argsort(np.argsort(-scores, axis=-1), axis=-1) < top_k
    expected = by_hand(params, mask)
    for outputs, usage in (
        call(CONFIG, params, top_k, path="masked"),
        call(CONFIG, params, top_k, path="gather"),
        call(CONFIG, params, top_k),
        called(CONFIG, params, (("path", "gather"),), jnp.asarray(top_k)),
    ):
        np.testing.assert_allclose(outputs, expected, atol=2e-6, rtol=1e-5)
        np.testing.assert_allclose(usage, mask.reshape(-1, 20).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("top_k", [7, 3])
def test_a_router_of_blocks_selects_whole_blocks_by_every_path(top_k):
    params = params_of(BLOCKS)
    scores = INPUTS @ np.asarray(params["router"]["kernel"])
    best = np.argsort(np.argsort(-scores, axis=-1), axis=-1) < 1  # rounded down, but at least one
    expected = by_hand(params, np.repeat(best, 4, axis=-1))
    for path in ("masked", "gather", "block", "auto"):
        outputs, usage = call(BLOCKS, params, top_k, path=path)
        np.testing.assert_allclose(outputs, expected, atol=2e-6, rtol=1e-5)
        assert float(usage.sum()) == pytest.approx(4)


def test_blocks_of_a_router_of_neurons_go_by_the_mean_of_their_scores():
    config = SproutFFNConfig(d_model=6, d_ff=18, block_size=4)  # the last block has two neurons
    params = params_of(config)
    scores = INPUTS @ np.asarray(params["router"]["kernel"])
    means = np.stack([scores[..., start : start + 4].mean(axis=-1) for start in range(0, 18, 4)], axis=-1)
    chosen = np.argsort(np.argsort(-means, axis=-1), axis=-1) < 2
    mask = np.repeat(chosen, 4, axis=-1)[..., :18]
    outputs, usage = call(config, params, 9, path="block")
    np.testing.assert_allclose(outputs, by_hand(params, mask), atol=2e-6, rtol=1e-5)
    np.testing.assert_allclose(usage, mask.reshape(-1, 18).mean(axis=0), atol=1e-6)


def test_no_neuron_leaves_the_output_bias_and_enough_of_them_all():
    params = params_of(CONFIG)
    outputs, usage = call(CONFIG, params, 0)
    np.testing.assert_array_equal(outputs, np.broadcast_to(params["b_out"], INPUTS.shape))
    assert not np.asarray(usage).any()
    dense, usage = call(CONFIG, params)
    np.testing.assert_allclose(dense, by_hand(params, 1.0), atol=2e-6, rtol=1e-5)
    np.testing.assert_array_equal(usage, np.ones(20))
    np.testing.assert_array_equal(call(CONFIG, params, 25)[0], dense)


def test_sparse_k_stands_for_a_count_that_is_not_given():
    config = SproutFFNConfig(d_model=6, d_ff=20, sparse_k=5)
    assert resolve_top_k(config, None) == 5
    assert resolve_top_k(config, 20) is None
    assert resolve_top_k(config, np.int64(3)) == 3 and type(resolve_top_k(config, np.int64(3))) is int


def test_straight_through_keeps_the_outputs_and_teaches_the_router():
    params, top_k = params_of(CONFIG), 7
    weights = jnp.asarray(np.random.default_rng(2).normal(size=INPUTS.shape), jnp.float32)

    @partial(quick.jit, static_argnums=1)
    @partial(jax.value_and_grad, has_aux=True)
    def loss(params, straight_through):
        options = {"top_k": top_k, "path": "masked", "straight_through": straight_through}
        outputs = SproutFFN(CONFIG).apply({"params": params}, INPUTS, **options)
        return (outputs * weights).sum(), outputs

    (_, plain), without = loss(params, False)
    (_, gated), with_it = loss(params, True)
    np.testing.assert_array_equal(gated, plain)
    assert not np.asarray(without["router"]["kernel"]).any()
    # By hand: every neuron's sum times its gate, whose derivative is that of the sigmoid.
    scores = INPUTS @ np.asarray(params["router"]["kernel"])
    mask = np.argsort(np.argsort(-scores, axis=-1), axis=-1) < top_k
    sums = INPUTS @ np.asarray(params["w_in"]).T + np.asarray(params["b_in"])
    slopes = jax.vmap(jax.grad(partial(jax.nn.gelu, approximate=False)))((sums * mask).ravel())
    of_gates = np.asarray(slopes).reshape(sums.shape) * sums * (weights @ params["w_out"].T)
    chance = 1 / (1 + np.exp(-scores))
    expected = np.einsum("btd,btf->df", INPUTS, of_gates * chance * (1 - chance))
    np.testing.assert_allclose(with_it["router"]["kernel"], expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(with_it["w_in"], without["w_in"], atol=1e-5, rtol=1e-5)


def test_16_bit_products_with_scores_and_selection_in_float32():
    params = params_of(CONFIG)
    model = SproutFFN(CONFIG, dtype=jnp.bfloat16)
    outputs, seen = quick.jit(
        lambda: model.apply({"params": params}, INPUTS, top_k=7, mutable=["intermediates"])
    )()
    assert outputs.dtype == jnp.bfloat16
    assert seen["intermediates"]["scores"][0].dtype == jnp.float32
    assert not np.array_equal(outputs.astype(jnp.float32), call(CONFIG, params, 7)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "dense"}, "path='dense' is not known"),
        ({"mixer": "on"}, "mixer='on' is not known"),
        ({"top_k": -1}, "at least 0, not -1"),
        ({"top_k": 1.5}, "whole number, not 1.5"),
        ({"top_k": True}, "whole number, not True"),
        ({"top_k": jnp.ones(2, int)}, r"shape \(2,\)"),
        ({"top_k": jnp.ones(())}, "array of float32; integers"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: SproutFFN(CONFIG).init(jax.random.key(0), INPUTS, **options))


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"\(..., 6\) is needed"):
        jax.eval_shape(lambda: SproutFFN(CONFIG).init(jax.random.key(0), INPUTS[..., :5]))


def test_counts_for_layers():
    assert per_layer(None, 2) == (None, None)
    assert per_layer([3, None], 2) == (3, None)
    assert [int(count) for count in per_layer(np.array([3, 4]), 2)] == [3, 4]
    with pytest.raises(ValueError, match="3 entries; the network has 2 layers"):
        per_layer((1, 2, 3), 2)
