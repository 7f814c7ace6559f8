"""The language model: counts of every kind, recomputed layers, masks, dropout, dtypes, bad calls."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import SproutConfig, SproutLM
from tests.models.sprout import quick

CONFIG = SproutConfig(vocab_size=11, d_model=8, d_ff=12, n_heads=2, n_layers=2, max_len=6, dropout=0.0)
TOKENS = np.array([[0, 10, 3, 5], [7, 1, 1, 2]])


def shapes_of(config):
    model = SproutLM(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), int)))["params"]


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    made = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), shapes_of(CONFIG)
    )
    return made


def call(params, config=CONFIG, **options):
    return quick.jit(lambda params: SproutLM(config).apply({"params": params}, TOKENS, **options))(params)


def test_the_published_size():
    sizes = {"vocab_size": 30522, "n_layers": 6, "max_len": 512}
    shapes = shapes_of(SproutConfig(**sizes))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 56_738_618


def test_counts_of_every_kind(params):
    @quick.jit
    def traced(params, one, several):
        model = SproutLM(CONFIG)
        return [model.apply({"params": params}, TOKENS, top_k=top_k) for top_k in (one, several)]

    one, several = traced(params, jnp.asarray(5), jnp.asarray([5, 12]))
    static = call(params, top_k=5)
    np.testing.assert_allclose(one.logits, static.logits, atol=1e-6)
    np.testing.assert_allclose(static.aux.usage.sum(axis=1), [5, 5], rtol=1e-6)
    mixed = call(params, top_k=(5, None))
    np.testing.assert_allclose(several.logits, mixed.logits, atol=1e-6)
    np.testing.assert_array_equal(mixed.aux.usage[1], np.ones(12))
    by_default = call(params, dataclasses.replace(CONFIG, sparse_k=5))
    np.testing.assert_array_equal(by_default.logits, static.logits)
    assert np.abs(static.logits - mixed.logits).max() > 1e-2


def test_recomputed_layers_give_the_same_gradients(params):
    again = dataclasses.replace(CONFIG, gradient_checkpointing=True)

    def loss(params, config, **options):
        logits = SproutLM(config).apply({"params": params}, TOKENS, train=True, **options).logits
        return jax.nn.logsumexp(logits, axis=-1).sum()

    @quick.jit
    def gradients(params, top_k):
        return [jax.grad(loss)(params, config, top_k=top_k) for config in (CONFIG, again)]

    expected, found = gradients(params, jnp.asarray([5, 3]))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
    # A static count stays static: nothing else can be gathered.
    traced = jax.make_jaxpr(lambda params: jax.grad(loss)(params, again, top_k=5, path="gather"))(params)
    assert "remat" in str(traced) or "checkpoint" in str(traced)


def test_padded_tokens_are_seen_by_nobody_and_gradients_stay_finite(params):
    ignored = jnp.asarray([[False, False, True, True], [True] * 4])

    @quick.jit
    def run(params, tokens):
        def loss(params):
            logits = SproutLM(CONFIG).apply({"params": params}, tokens, key_padding_mask=ignored).logits
            return logits.sum(), logits

        return jax.grad(loss, has_aux=True)(params)

    gradient, logits = run(params, TOKENS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    _, changed = run(params, np.where(ignored, 9, TOKENS))
    np.testing.assert_array_equal(logits[0, :2], changed[0, :2])
    assert np.abs(logits[0, 2:] - changed[0, 2:]).max() > 1e-3


def test_dropout_acts_in_training_only_and_needs_a_key(params):
    config = dataclasses.replace(CONFIG, dropout=0.5)
    model = SproutLM(config)

    @quick.jit
    def run(params, key):
        options = {"train": True, "rngs": {"dropout": key}}
        return model.apply({"params": params}, TOKENS, **options).logits

    first, second = (run(params, jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-2
    with pytest.raises(ValueError, match='rngs={"dropout": key}'):
        jax.eval_shape(lambda: model.apply({"params": params}, TOKENS, train=True))


def test_in_16_bits_logits_scores_and_softmax_are_float32(params):
    model = SproutLM(CONFIG, dtype=jnp.bfloat16)
    out, seen = jax.eval_shape(
        lambda: model.apply({"params": params}, TOKENS, top_k=5, mutable=["intermediates"])
    )
    layer = seen["intermediates"]["layer_0"]
    assert out.logits.dtype == jnp.float32 and out.aux.usage.dtype == jnp.float32
    assert layer["ffn"]["scores"][0].dtype == jnp.float32
    assert layer["ffn_out"][0].dtype == layer["attention_out"][0].dtype == jnp.bfloat16
    hidden = jax.eval_shape(lambda: model.apply({"params": params}, TOKENS, method="hidden"))
    assert hidden.dtype == jnp.bfloat16
    close = quick.jit(lambda params: model.apply({"params": params}, TOKENS).logits)(params)
    np.testing.assert_allclose(close, call(params).logits, atol=0.3)


def test_the_head_takes_what_hidden_gives(params):
    hidden = call(params, top_k=5, method="hidden")
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(call(params, top_k=5).logits, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "options", "words"),
    [
        (np.zeros((1, 7), int), {}, "7 tokens; the position table has max_len=6"),
        (np.zeros(3, int), {}, r"\(b, t\) is needed"),
        (TOKENS, {"top_k": (1, 2, 3)}, "3 entries; the network has 2 layers"),
        (TOKENS, {"top_k": -2}, "at least 0, not -2"),
        (TOKENS, {"path": "dense"}, "path='dense' is not known"),
    ],
)
def test_what_cannot_be_is_refused_inside_jit_as_well(params, tokens, options, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: SproutLM(CONFIG).apply({"params": params}, tokens, **options))
