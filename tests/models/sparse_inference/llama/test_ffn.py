"""Decoders that compute some neurons, against float64; perplexity; and what FFNs read."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.sparse_inference import SparsityConfig
from sparsejax.models.sparse_inference.calibration.compensation import Compensation
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama import ffn as llama_ffn
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.ffn import GatedWeights, Selection, feed_forward, sparse_options
from sparsejax.models.sparse_inference.llama.generation import generate
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.observe import collect_ffn_inputs, ffn_weights
from sparsejax.models.sparse_inference.llama.perplexity import perplexity
from sparsejax.models.sparse_inference.llama.text_rows import batches, token_rows
from sparsejax.models.sparse_inference.llama.weights import (
    llama_tensors,
    quantize_llama,
)
from sparsejax.models.sparse_inference.predictor.ahead import LookAhead
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from sparsejax.ops.quantized import QuantizedTensor
from tests.models.sparse_inference import llama_oracle
from tests.models.sparse_inference.llama_files import llama_params

CONFIG = LlamaConfig(vocab_size=29, d_model=32, d_ff=64, n_layers=2, n_heads=4, activation="relu")
TENSORS = llama_oracle.random_tensors(CONFIG, scale=0.2)
MODEL, PARAMS = LlamaLM(CONFIG), llama_params(CONFIG, llama_oracle.file_tensors(TENSORS))
FFN = ("ffn_gate", "ffn_up", "ffn_down")
TOKENS = np.random.default_rng(1).integers(0, 29, (2, 9)).astype(np.int32)
RNG = np.random.default_rng(2)
SCORERS = [(RNG.normal(size=(3, 32)), RNG.normal(size=(64, 3))) for _ in range(2)]
PREDICTORS = tuple(LowRankPredictor(jnp.float32(p), jnp.float32(q)) for p, q in SCORERS)


def best(count, lag=0, layers=(0, 1), block=1):
    """The oracle's rule: the best-scored neurons, or blocks of them, of each token."""
    seen = []

    def neurons(layer, inputs, values):
        seen.append(inputs)
        if layer not in layers:
            return np.ones_like(values)
        p, q = SCORERS[layer]
        scores = seen[-1 - lag] @ p.T @ q.T
        if block > 1:
            scores = (np.maximum(scores, 0) ** 2).reshape(len(scores), -1, block).sum(-1)
        mask = np.zeros_like(scores)
        np.put_along_axis(mask, np.argsort(-scores, axis=-1)[:, : count // block], 1, axis=-1)
        return np.repeat(mask, block, axis=-1)

    return neurons


def expected(rule, tensors=TENSORS):
    return np.array([llama_oracle.logits(CONFIG, tensors, row, rule()) for row in TOKENS])


@partial(jax.jit, static_argnames=("model", "active_fraction", "sparsity"))
def run(model, params, predictors, *, active_fraction=None, sparsity=None, traced=None):
    fraction = active_fraction if traced is None else traced
    options = {"predictors": predictors, "active_fraction": fraction, "sparsity": sparsity}
    return model.apply({"params": params}, TOKENS, capacity=0, **options).logits


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=3e-5 * np.abs(wanted).max())


def test_the_best_scored_neurons_are_computed():
    wanted = expected(lambda: best(16))
    close(run(MODEL, PARAMS, PREDICTORS, active_fraction=0.25), wanted)
    close(run(MODEL, PARAMS, PREDICTORS, traced=jnp.float32(0.25)), wanted)
    close(run(MODEL, PARAMS, PREDICTORS, sparsity=SparsityConfig.with_top_k(16)), wanted)
    dense = run(MODEL, PARAMS, None)
    assert np.abs(dense - wanted).max() > 0.1 * np.abs(wanted).max()
    np.testing.assert_array_equal(run(MODEL, PARAMS, PREDICTORS, active_fraction=1.0), dense)


def test_blocks_may_be_left_dense_or_differ():
    wanted = expected(lambda: best(8, layers=(1,)))
    each = (SparsityConfig.with_top_k(3), SparsityConfig.with_top_k(8))
    close(run(MODEL, PARAMS, {1: PREDICTORS[1]}, sparsity=each), wanted)


def test_a_predictor_may_read_the_layer_before():
    ahead = (None, LookAhead(PREDICTORS[1]))
    close(run(MODEL, PARAMS, ahead, active_fraction=0.25), expected(lambda: best(16, lag=1, layers=(1,))))


def is_quantized(leaf):
    return isinstance(leaf, QuantizedTensor)


def in_order(leaf, order):
    return leaf.ordered(order) if is_quantized(leaf) else leaf


def test_of_quantised_weights_whole_blocks_are_computed():
    config, params = quantize_llama(CONFIG, PARAMS, "q8_0")
    values = {
        name: np.asarray(leaf.dequantize()) if hasattr(leaf, "dequantize") else leaf
        for name, leaf in llama_tensors(config, params).items()
    }
    wanted = expected(lambda: best(32, block=32), values)
    close(run(LlamaLM(config), params, PREDICTORS, active_fraction=0.5), wanted)
    few = TOKENS[:, :4]  # read tile by tile
    options = {"predictors": PREDICTORS, "active_fraction": 0.5, "capacity": 0}
    assert params["blk_0"]["ffn_gate"]["weight"].order == "rows"
    assert params["blk_0"]["ffn_down"]["weight"].order == "columns"
    for order in ("rows", "columns"):
        ordered = jax.tree.map(lambda leaf: in_order(leaf, order), params, is_leaf=is_quantized)  # noqa: B023
        found = jax.jit(partial(LlamaLM(config).apply, **options))({"params": ordered}, few).logits
        close(found, wanted[:, :4])


def test_a_number_given_to_a_checkpoint_chooses_as_a_sparsity_does(monkeypatch):
    monkeypatch.setattr(llama_ffn, "_of_traced", None)  # which would compute all neurons
    ck = Checkpoint("sparse_inference", "gguf_llama", *quantize_llama(CONFIG, PARAMS, "q8_0"))
    few, options = TOKENS[:1, :3], {"predictors": PREDICTORS, "capacity": 0}
    wanted = ck.apply(few, sparsity=SparsityConfig.with_active_fraction(0.5), **options).logits
    for fraction in (0.5, [0.5, 0.5], np.float32(0.5)):
        found = ck.apply(few, active_fraction=fraction, **options).logits
        np.testing.assert_array_equal(found, wanted)
    for fraction in (0.0, 1.5, [0.5, -0.5]):
        with pytest.raises(ValueError, match="active_fraction must be above 0 and at most 1"):
            ck.apply(few, active_fraction=fraction, **options)


def test_arrays_are_checked_as_numbers_are_where_they_are_known():
    tokens = jnp.asarray(TOKENS)
    for fraction in (jnp.float32(1.5), np.zeros(())):
        with pytest.raises(ValueError, match="active_fraction must be above 0 and at most 1"):
            MODEL.apply({"params": PARAMS}, tokens, predictors=PREDICTORS, active_fraction=fraction)
    with pytest.raises(ValueError, match=r"one number for all blocks.*not an array of shape \(2,\)"):
        MODEL.apply({"params": PARAMS}, tokens, predictors=PREDICTORS, active_fraction=jnp.ones(2))
    with pytest.raises(ValueError, match=r"not an array of shape \(2,\)"):
        run(MODEL, PARAMS, PREDICTORS, traced=jnp.full(2, 0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"active_fraction": 0.5}, "active_fraction and sparsity need predictors, one per block"),
        ({"predictors": PREDICTORS}, "predictors need active_fraction or sparsity, only one of them"),
    ],
)
def test_networks_refuse_half_a_selection(options, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: MODEL.apply({"params": PARAMS}, jnp.asarray(TOKENS), **options))


def test_equal_shares_are_one_selection():
    assert sparse_options(PREDICTORS, 0.25, None, 2) == sparse_options(
        PREDICTORS, None, SparsityConfig.with_active_fraction(0.25), 2
    )


FITTED = Compensation(jnp.zeros((32, 1)), jnp.zeros((1, 32)), jnp.full(32, 100.0))


@pytest.mark.parametrize(("count", "added"), [(32, 100), (64, 0)])
@pytest.mark.parametrize("tokens", [2, 9])  # read tile by tile, and masked
def test_compensation_is_not_added_to_what_all_quantised_neurons_give(count, added, tokens):
    matrices = [QuantizedTensor.quantize(PARAMS["blk_0"][name]["weight"], "q8_0") for name in FFN[:2]]
    down = QuantizedTensor.quantize(PARAMS["blk_0"]["ffn_down"]["weight"].T, "q8_0")
    weights, inputs = GatedWeights(*matrices, down), jnp.ones((1, tokens, 32))
    selection = Selection(PREDICTORS[0], SparsityConfig.with_top_k(count), None)
    bare = feed_forward(inputs, weights, "relu", selection)
    outputs = feed_forward(inputs, weights, "relu", selection._replace(fitted=FITTED))
    np.testing.assert_allclose(outputs - bare, added, atol=1e-4)
    every = feed_forward(inputs, weights, "relu", None)
    if added == 0:
        np.testing.assert_array_equal(outputs, every)
    dense = selection._replace(plan=FFNPlan(path="dense"), fitted=FITTED)
    np.testing.assert_array_equal(feed_forward(inputs, weights, "relu", dense), every)


@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_a_traced_fraction_obeys_the_plan_and_is_compensated(fraction):
    down = PARAMS["blk_0"]["ffn_down"]["weight"]
    weights = GatedWeights(*(PARAMS["blk_0"][name]["weight"] for name in FFN[:2]), down)
    plan, inputs = (
        FFNPlan(block_size=8, group=2, hot=8),
        jnp.asarray(RNG.normal(size=(1, 5, 32)), jnp.float32),
    )
    told = Selection(PREDICTORS[0], SparsityConfig.with_active_fraction(fraction), plan, FITTED)
    wanted = feed_forward(inputs, weights, "relu", told)
    found = feed_forward(inputs, weights, "relu", told._replace(sparsity=jnp.float32(fraction)))
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_generation_takes_the_same_neurons_as_the_full_pass():
    options = {"predictors": PREDICTORS, "active_fraction": 0.25}
    found = generate((MODEL, PARAMS), TOKENS, max_new_tokens=1, temperature=0, **options)
    logits = expected(lambda: best(16))[:, -1]
    np.testing.assert_array_equal(found.tokens[:, 0], logits.argmax(-1))


@pytest.mark.parametrize("count", [None, 16])
def test_perplexity_weighs_tokens_alike(count):
    rows = [TOKENS[0], TOKENS[1, :4]]
    options = {} if count is None else {"predictors": PREDICTORS, "active_fraction": count / 64}
    surprise, number = 0.0, 0
    for row in rows:
        logits = llama_oracle.logits(CONFIG, TENSORS, row, None if count is None else best(count))
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        surprise -= log_probabilities[np.arange(len(row) - 1), row[1:]].sum()
        number += len(row) - 1
    found = perplexity((MODEL, PARAMS), [row.tolist() for row in rows], **options)
    assert found == pytest.approx(np.exp(surprise / number), rel=2e-5)


def test_long_texts_are_cut_and_batched():
    rows = token_rows(None, np.arange(25), vocab_size=29, context=10)
    assert [row.tolist() for row in rows] == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]
    parts = list(batches([np.arange(300)] * 40, vocab_size=1 << 17))
    assert [tokens.shape for tokens, _ in parts] == [(2, 512)] * 20
    with pytest.raises(ValueError, match="no row has two tokens"):
        perplexity((MODEL, PARAMS), [[3]])
    with pytest.raises(ValueError, match="a context of 1 tokens predicts nothing; give at least 2"):
        perplexity((MODEL, PARAMS), TOKENS, context=1)


def test_texts_are_what_their_tokens_are():
    letters = ["<unk>", *"abcdefghijklmnopqrstuvwxyz ▁"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": letters,
        "tokenizer.ggml.scores": np.zeros(29, np.float32),
        "tokenizer.ggml.token_type": np.array([2, *[1] * 28], np.int32),
        "tokenizer.ggml.add_bos_token": False,
    }
    ck = Checkpoint("sparse_inference", "gguf_llama", CONFIG, PARAMS, metadata)
    one = token_rows(ck, "abc", vocab_size=29, context=10)
    assert [row.tolist() for row in one] == [[28, 1, 2, 3]]
    mixed = token_rows(ck, ["abc", [7, 8], "d"], vocab_size=29, context=3)
    assert [row.tolist() for row in mixed] == [[28, 1, 2], [3], [7, 8], [28, 4]]
    assert perplexity(ck, ["abc", "d"]) == perplexity(ck, [[28, 1, 2, 3], [28, 4]])
    with pytest.raises(ValueError, match="there is text and no tokenizer is known; give token ids"):
        perplexity((MODEL, PARAMS), "abc")


def test_inputs_of_every_ffn_are_collected_without_padding():
    wanted = [[], []]

    def keep(layer, inputs, values):
        wanted[layer].append(inputs)
        return np.ones_like(values)

    rows = [TOKENS[0].tolist(), TOKENS[1, :4].tolist()]
    for row in rows:
        llama_oracle.logits(CONFIG, TENSORS, np.asarray(row), keep)
    (found,) = collect_ffn_inputs((MODEL, PARAMS), rows)
    for layer in range(2):
        np.testing.assert_allclose(found[layer], np.concatenate(wanted[layer]), atol=1e-4)
    weights = ffn_weights(PARAMS, 1)
    np.testing.assert_array_equal(weights.w_in, TENSORS["blk.1.ffn_up.weight"])
    np.testing.assert_array_equal(weights.w_out, TENSORS["blk.1.ffn_down.weight"].T)
    with pytest.raises(ValueError, match="the network has no block 2"):
        ffn_weights(PARAMS, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictors": PREDICTORS}, "belong together"),
        ({"active_fraction": 0.1}, "belong together"),
        ({"predictors": PREDICTORS[:1], "active_fraction": 0.1}, "1 predictors do not fit 2 blocks"),
        ({"predictors": {2: PREDICTORS[0]}, "active_fraction": 0.1}, "predictors name block 2"),
        ({"predictors": PREDICTORS, "active_fraction": 0.0}, "active_fraction must be above 0"),
        ({"predictors": PREDICTORS, "active_fraction": (0.1,) * 3}, "3 active_fraction do not fit 2 blocks"),
        (
            {"predictors": PREDICTORS, "active_fraction": 0.1, "sparsity": SparsityConfig.with_top_k(1)},
            "only one of them",
        ),
    ],
)
def test_selections_that_cannot_be_right_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        perplexity((MODEL, PARAMS), TOKENS, **options)
