"""The shipped masked language model keeps its loss with fewer neurons, and the parts of its training work."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.sprout import SproutConfig, SproutLM
from sparsejax.models.sprout.mlm import MaskingRule, mlm_loss
from sparsejax.training.gradient_step import start_state
from sparsejax.training.optimizer import adamw
from sparsejax.training.recipes.sprout.checkpoints import FILE, HELD_OUT, VOCABULARY
from sparsejax.training.recipes.sprout.fill_mask import fill_mask
from sparsejax.training.recipes.sprout.sandwich import (
    Sandwich,
    first_params,
    reordered,
    sandwich_loss,
    trained,
)
from sparsejax.training.text.tokenizer import read_tokenizer
from tests.conftest import ROOT

CHECKPOINTS = ROOT / "checkpoints"
CONFIG = SproutConfig(
    vocab_size=20, d_model=32, d_ff=16, n_heads=2, n_layers=1, max_len=12, block_size=4, dropout=0.0
)
RULE = MaskingRule(20, mask_id=4, special_ids=(0, 1, 2, 3, 4))
ROWS = np.random.default_rng(0).integers(5, 20, (32, 12)).astype(np.int32)


@pytest.fixture(scope="module")
def shipped():
    return sj.load(CHECKPOINTS / FILE)


@pytest.fixture(scope="module")
def entry():
    entries = json.loads((CHECKPOINTS / "manifest.json").read_text())["checkpoints"]
    return next(entry for entry in entries if entry["file"] == FILE)


def test_the_shipped_file_has_the_losses_that_the_manifest_names(shipped, entry):
    with np.load(CHECKPOINTS / HELD_OUT) as text:
        read, labels = (jnp.asarray(text[name], jnp.int32) for name in ("read", "labels"))
    named = entry["held_out_masked_loss"]

    @jax.jit
    def loss(params, read, labels, top_k):
        out = shipped.model.apply({"params": params}, read, top_k=top_k, path="block")
        return mlm_loss(out.logits, labels)[0]

    for name, top_k in (("dense", 512), ("block 0.1", 51)):
        assert float(loss(shipped.params, read, labels, top_k)) == pytest.approx(named[name], abs=2e-4)


def test_the_manifest_has_what_the_network_keeps_and_how_it_was_made(entry):
    losses = entry["held_out_masked_loss"]
    assert losses["dense"] < 4.2  # that of the most frequent words alone is 5.9
    for mode in ("neuron", "block"):
        for share, most in ((0.5, 1.02), (0.25, 1.05), (0.1, 1.12)):
            assert losses[f"{mode} {share}"] <= most * losses["dense"]
    assert losses["block 0.1"] <= 1.03 * losses["neuron 0.1"]
    assert losses["block 0.1"] - losses["dense"] < 0.25 * (losses["none"] - losses["dense"])
    for router, oracle, _ in entry["cosine_router_oracle_random"].values():
        assert router >= 0.97 * oracle
    assert "1600 steps of 16 x 64 tokens" in entry["made"]


def test_it_guesses_words(shipped):
    tokenizer = read_tokenizer(CHECKPOINTS / VOCABULARY)
    (guesses,) = fill_mask(shipped, "Return the [MASK] of the file.", 5, top_k=51, tokenizer=tokenizer)
    assert all(guess.token.strip("#").isalpha() for guess in guesses[:1])
    assert guesses[0].probability > 5 / tokenizer.vocab_size


def test_first_heads_look_at_neighbours():
    params = first_params(CONFIG, jax.random.key(0))
    positions = params["position_embedding"]["embedding"]
    attention = params["layer_0"]["attention"]
    query, key = (
        (positions @ attention[part]["kernel"]).reshape(CONFIG.max_len, CONFIG.n_heads, -1)
        for part in ("query", "key")
    )
    seen = np.asarray(jnp.einsum("thc,shc->hts", query, key).argmax(axis=-1))
    inner = np.arange(1, CONFIG.max_len - 1)
    assert (seen[0][inner] == inner - 1).all() and (seen[1][inner] == inner + 1).all()


def test_reordering_keeps_the_function_and_moves_the_moments():
    params = first_params(CONFIG, jax.random.key(0))
    optimizer = adamw(lambda step: 1e-3)
    state = start_state(jax.random.key(1), params, optimizer)
    moments = state.optimizer[0]._replace(mu=params)
    state = state.replace(optimizer=(moments, *state.optimizer[1:]))
    after = reordered(CONFIG, state, ROWS)
    assert not np.array_equal(after.params["layer_0"]["ffn"]["w_in"], params["layer_0"]["ffn"]["w_in"])
    jax.tree.map(np.testing.assert_array_equal, after.optimizer[0].mu, after.params)
    model = SproutLM(CONFIG)
    before, now = (model.apply({"params": each}, ROWS[:2]).logits for each in (params, after.params))
    np.testing.assert_allclose(now, before, atol=1e-5)


def test_the_routers_loss_reaches_routers_alone():
    params = first_params(CONFIG, jax.random.key(0))
    batch = {"tokens": ROWS[:4], "top_k": jnp.asarray([8, 4])}

    @jax.jit
    @jax.grad
    def gradient_of_routers_loss(params):
        both, without = (
            sandwich_loss(CONFIG, RULE, params, batch, jax.random.key(0), path="block", router_weight=weight)
            for weight in (1.0, 0.0)
        )
        return both.mean - without.mean

    gradient = gradient_of_routers_loss(params)
    assert float(jnp.abs(gradient["layer_0"]["ffn"]["router"]["kernel"]).max()) > 1e-4
    rest = {**gradient["layer_0"], "ffn": {**gradient["layer_0"]["ffn"], "router": {}}}
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(rest)) < 1e-6


def test_a_short_training_lowers_the_loss():
    losses = []
    rows = np.tile(np.arange(5, 17, dtype=np.int32), (32, 1))
    settings = Sandwich(steps=60, batch_size=8, learning_rate=1e-2, warmup=2, permuted_at=0)
    trained(CONFIG, settings, rows, RULE, told=lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == [50, 60]
    assert losses[1][1] < 0.5 * losses[0][1]
