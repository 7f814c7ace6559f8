"""Generation against the full forward pass, rows against each alone, text, and what is refused."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.llama import generation
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.generation import generate, stream
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from tests.compilations import compilations

SIZES = {"vocab_size": 40, "d_model": 16, "d_ff": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [31], [7, 8, 9, 10]]


@pytest.fixture(scope="module")
def tiny():
    model = LlamaLM(LlamaConfig(**SIZES, context_length=512))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return model, jax.tree.map(lambda leaf: leaf * (1 if leaf.ndim == 1 else 12), params)


@partial(jax.jit, static_argnums=0)
def _forward(model, params, tokens):
    return model.apply({"params": params}, tokens, capacity=0).logits


def _full_logits(source, rows):
    tokens = np.zeros((len(rows), 32), np.int32)
    for padded, row in zip(tokens, rows, strict=True):
        padded[: len(row)] = row
    return np.asarray(_forward(*source, tokens))


def _check_greedy(source, prompts, found):
    rows = [[*prompt, *tokens] for prompt, tokens in zip(prompts, found.tokens.tolist(), strict=True)]
    logits = _full_logits(source, rows)
    for row, prompt in enumerate(prompts):
        there = logits[row, len(prompt) - 1 :][: found.tokens.shape[1]].astype(np.float64)
        chosen = np.take_along_axis(there, found.tokens[row][:, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, there.max(axis=1), atol=1e-4)
        log_sum = np.log(np.exp(there - there.max(1, keepdims=True)).sum(1)) + there.max(1)
        np.testing.assert_allclose(found.log_probabilities[row], chosen - log_sum, atol=1e-4)


def test_steps_of_rows_of_any_length_equal_the_full_forward_and_each_row_alone(tiny):
    found = generate(tiny, PROMPTS, max_new_tokens=12, temperature=0)
    _check_greedy(tiny, PROMPTS, found)
    assert len(set(found.tokens.reshape(-1).tolist())) > 5
    alone = generate(tiny, PROMPTS[1:2], max_new_tokens=12, temperature=0)
    np.testing.assert_array_equal(found.tokens[1:2], alone.tokens)
    np.testing.assert_array_equal(found.state.lengths, [len(prompt) + 12 for prompt in PROMPTS])
    assert found.texts is None


def test_segments_of_the_prompt_change_nothing(tiny):
    prompts = [list(range(23)), list(range(8)), [1, 2, 3]]
    found = generate(tiny, prompts, max_new_tokens=9, temperature=0, prefill_segment=8)
    _check_greedy(tiny, prompts, found)


def test_the_cache_grows_and_generation_goes_on(tiny, monkeypatch):
    whole = generate(tiny, PROMPTS, max_new_tokens=100, temperature=0)
    monkeypatch.setattr(generation, "_FIRST_TOKENS", 4)
    found = generate(tiny, PROMPTS, max_new_tokens=100, temperature=0)
    assert whole.state.capacity == found.state.capacity == 128
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    np.testing.assert_allclose(found.log_probabilities, whole.log_probabilities, atol=1e-4)


def test_prompts_of_all_lengths_share_a_few_programs(tiny):
    with compilations() as counts:
        for length in range(1, 41, 3):
            generate(tiny, [[1] * length], max_new_tokens=1 + length % 9, temperature=0, prefill_segment=32)
        for temperature, top_k, top_p in ((0.5, 3, 0.9), (1.5, 7, 0.2)):
            generate(tiny, [[1]], max_new_tokens=3, temperature=temperature, top_k=top_k, top_p=top_p)
    assert counts["_read"] <= 2  # 16 and 32 tokens
    assert counts["_advance"] <= 2  # greedy, and with a temperature and filters


def test_the_cache_is_written_in_place(tiny):
    tokens = stream(tiny, PROMPTS, max_new_tokens=4, temperature=0)
    before = tokens._progress.state.keys[0]
    next(tokens)
    assert before.is_deleted()


def test_stream_gives_the_tokens_of_generate_as_they_come(tiny):
    options = {"max_new_tokens": 6, "key": jax.random.key(3), "top_k": 30}
    whole = generate(tiny, PROMPTS, **options)
    tokens = stream(tiny, PROMPTS, **options)
    first = next(tokens)
    np.testing.assert_array_equal(np.stack([first, *tokens], axis=1), whole.tokens)
    heard = []
    generate(tiny, PROMPTS, on_token=lambda step, newest: heard.append((step, *newest)), **options)
    assert heard == [(step, *newest) for step, newest in enumerate(whole.tokens.T.tolist())]
    half = stream(tiny, PROMPTS, **options)
    next(half)
    np.testing.assert_array_equal(half.finish().tokens, whole.tokens)


def test_rows_end_with_a_stop_token_and_keep_their_state(tiny):
    options = {"max_new_tokens": 9, "key": jax.random.key(8)}
    free = generate(tiny, PROMPTS, **options)
    stops = [int(free.tokens[1, 3]), int(free.tokens[0, 5])]
    found = generate(tiny, PROMPTS, stop_tokens=stops, pad_token=39, **options)
    for row, prompt in enumerate(PROMPTS):
        hits = np.flatnonzero(np.isin(free.tokens[row], stops))
        length = int(hits[0]) + 1 if hits.size else 9
        assert found.lengths[row] == length
        np.testing.assert_array_equal(found.tokens[row, :length], free.tokens[row, :length])
        assert (found.tokens[row, length:] == 39).all()
        assert found.state.lengths[row] == len(prompt) + length
    following = np.array([[11], [12], [13]], np.int32)
    rows = [
        [*prompt, *tokens[:length], *token]
        for prompt, tokens, length, token in zip(
            PROMPTS, found.tokens.tolist(), found.lengths, following.tolist(), strict=True
        )
    ]
    expected = [logits[len(row) - 1] for row, logits in zip(rows, _full_logits(tiny, rows), strict=True)]
    after = jax.jit(tiny[0].apply)({"params": tiny[1]}, following, found.state).logits[:, 0]
    np.testing.assert_allclose(after, expected, atol=1e-4)


@pytest.mark.parametrize("pad", [-100, 10**6])
def test_the_pad_token_may_be_none_of_the_vocabulary(tiny, pad):
    free = generate(tiny, PROMPTS, max_new_tokens=6, temperature=0)
    options = {"max_new_tokens": 6, "temperature": 0, "stop_tokens": [int(free.tokens[1, 0])]}
    found = generate(tiny, PROMPTS[:2], pad_token=pad, **options)
    assert found.tokens[1].tolist() == [free.tokens[1, 0], *[pad] * 5]
    np.testing.assert_array_equal(found.tokens[0, : found.lengths[0]], free.tokens[0, : found.lengths[0]])


def test_a_penalty_makes_repetition_rarer(tiny):
    free = generate(tiny, [[5, 5, 5]], max_new_tokens=30, temperature=0)
    fresh = generate(tiny, [[5, 5, 5]], max_new_tokens=30, temperature=0, repetition_penalty=5.0)
    assert len(set(fresh.tokens[0].tolist())) > len(set(free.tokens[0].tolist()))


WORDS = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz", *[f"▁{letter}" for letter in "abcdefgh"]]
METADATA = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": [*WORDS, "<0xC3>", "<0xA9>"],
    "tokenizer.ggml.scores": [0.0] * 30 + [-1.0] * 8 + [0.0] * 2,
    "tokenizer.ggml.token_type": [2, 3, 3] + [1] * 35 + [6, 6],
    "tokenizer.ggml.eos_token_id": 2,
}


def test_text_goes_in_and_comes_out_as_it_is_generated(tiny):
    source = SimpleNamespace(model=tiny[0], params=tiny[1], metadata=METADATA)
    heard = {0: "", 1: ""}

    def hear(row, piece):
        heard[row] += piece

    options = {"max_new_tokens": 12, "temperature": 0, "pad_token": 2}
    found = generate(source, ["a bad cab", "dad"], on_text=hear, **options)
    assert [heard[0], heard[1]] == found.texts
    ids = [[1, 30, 31, 4, 7, 32, 4, 5], [1, 33, 4, 7]]
    same = generate(tiny, ids, stop_tokens=[2], **options)
    np.testing.assert_array_equal(found.tokens, same.tokens)


def test_what_cannot_be_generated_is_refused(tiny):
    for options, message in (
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1"),
        ({"max_new_tokens": 512}, "need 513 positions; the network was trained for context_length=512"),
        ({"max_new_tokens": 1, "stop_tokens": [40]}, "stop_tokens has 40"),
        ({"max_new_tokens": 1, "temperature": -1.0}, "temperature must be"),
        ({"max_new_tokens": 1, "active_fraction": 0.5}, "predictors and active_fraction"),
        ({"max_new_tokens": 1, "on_text": print}, "on_text needs the file's tokenizer"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(tiny, [[1]], **options)
    for prompts, message in (
        ("hello", "no tokenizer is known"),
        ([[40]], "token ids from 40"),
        ([[]], "is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(tiny, prompts, max_new_tokens=1)
    with pytest.raises(ValueError, match="give a checkpoint"):
        generate(tiny[0], [[1]], max_new_tokens=1)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, tiny[1])
    with pytest.raises(ValueError, match="logits are NaN after 0 new tokens"):
        generate((tiny[0], broken), [[1]], max_new_tokens=1)
    unknown = SimpleNamespace(
        model=tiny[0], params=tiny[1], metadata={**METADATA, "tokenizer.ggml.model": "t5"}
    )
    with pytest.raises(Exception, match="the tokenizer 't5'"):
        generate(unknown, "hello", max_new_tokens=1)
    assert generate(unknown, [[1]], max_new_tokens=1).texts is None
