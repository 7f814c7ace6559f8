"""Generation against the full forward pass, rows of a batch against each row alone, and what is refused."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.generate import generate, stream
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from tests import golden
from tests.compilations import compilations

SIZES = {"vocab_size": 32, "dim": 16, "n_layers": 2, "num_eigenstates": 4, "n_heads": 2}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [31], [7, 8, 9, 10]]

# File, variant where it must be told, and overrides that make windows and thresholds matter; other families
# are made of the same parts.
FAMILIES = {
    "mit_sequential": {},
    "mit_fft_selective": {},
    "mit_final_full": {},
    "mit_pro_hybrid": {"overrides": {"attention_window": 5}},
    "mit_ssd_legacy": {},
    "mit_unified": {"overrides": {"context_threshold": 10}},
    "src_seed": {"variant": "seed"},
    "src_paper": {"variant": "paper"},
}


def _network(**fields):
    model = TemporalEigenstateNetwork(TemporalEigenstateConfig.modern(**{**SIZES, **fields}))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return model, params


@pytest.fixture(scope="session")
def tiny():
    return _network()


@pytest.fixture(scope="session")
def two_stacks():
    return _network(
        layer=EigenstateLayer(), long_layer=EigenstateLayer(memory=True, short_conv=3), context_threshold=8
    )


@partial(jax.jit, static_argnums=(0, 1))
def _forward(model, stack, params, tokens, state=None):
    return model.apply({"params": params}, tokens, state, stack=stack).logits


def _full_logits(model, params, rows, stack=None):
    """(b, 32, v) of the full forward pass; padding on the right changes nothing before it."""
    tokens = np.zeros((len(rows), 32), np.int32)
    for padded, row in zip(tokens, rows, strict=True):
        padded[: len(row)] = row
    return np.asarray(_forward(model, stack, params, tokens))


def _log_probabilities(found, prompts, logits):
    """(b, n) of the generated tokens by the full forward pass."""
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=-1, keepdims=True))
    steps = np.arange(found.tokens.shape[1])
    return np.stack(
        [
            expected[row, len(prompt) - 1 + steps, found.tokens[row, steps]]
            for row, prompt in enumerate(prompts)
        ]
    )


def _check_greedy(found, prompts, logits):
    """Every token is the most probable one of the full forward pass, and as probable."""
    np.testing.assert_allclose(found.log_probabilities, _log_probabilities(found, prompts, logits), atol=1e-4)
    for row, prompt in enumerate(prompts):
        there = logits[row, len(prompt) - 1 :][: found.tokens.shape[1]]
        chosen = np.take_along_axis(there, found.tokens[row][:, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, there.max(axis=1), atol=1e-4)


def _joined(prompts, found):
    return [[*prompt, *tokens] for prompt, tokens in zip(prompts, found.tokens.tolist(), strict=True)]


@pytest.mark.golden(*FAMILIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_every_family_equal_the_full_forward(family):
    ck = sj.load(golden.path("ten", f"{family}.pt"), **FAMILIES[family])
    found = generate(ck, PROMPTS, max_new_tokens=12, temperature=0)
    stack = "long" if ck.config.long_layer is not None else None
    _check_greedy(found, PROMPTS, _full_logits(ck.model, ck.params, _joined(PROMPTS, found), stack))


@pytest.mark.golden("src_seed", "src_paper")
@pytest.mark.parametrize("variant", ["seed", "paper"])
def test_published_greedy_tokens_without_the_cached_quirk(variant):
    expected = golden.arrays("ten", f"src_{variant}")
    ck = sj.load(golden.path("ten", f"src_{variant}.pt"), variant=variant)
    whole = expected["gen/tokens_nocache"]
    found = generate(ck, [whole[0, :5], *PROMPTS[1:]], max_new_tokens=10, temperature=0)
    np.testing.assert_array_equal(found.tokens[0], whole[0, 5:])
    assert (found.tokens[0] != expected["gen/tokens_cache_quirk"][0, 5:]).any()


def test_drawn_tokens_and_the_state_after_them_equal_the_full_forward(tiny):
    model, params = tiny
    found = generate(tiny, PROMPTS, max_new_tokens=12, key=jax.random.key(2))
    following = np.array([[11], [12], [13]], np.int32)
    rows = [[*row, *token] for row, token in zip(_joined(PROMPTS, found), following, strict=True)]
    logits = _full_logits(model, params, rows)
    expected = _log_probabilities(found, PROMPTS, logits)
    np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-4)
    after = _forward(model, None, params, following, found.state)[:, 0]
    np.testing.assert_allclose(after, [logits[n, len(row) - 1] for n, row in enumerate(rows)], atol=1e-4)
    np.testing.assert_array_equal(found.state.position, [len(row) - 1 for row in rows])


def test_rows_of_any_length_equal_each_row_alone(tiny):
    found = generate(tiny, PROMPTS, max_new_tokens=12, temperature=0)
    for row, prompt in enumerate(PROMPTS):
        alone = generate(tiny, [prompt], max_new_tokens=12, temperature=0)
        np.testing.assert_array_equal(found.tokens[row], alone.tokens[0])
        np.testing.assert_allclose(found.log_probabilities[row], alone.log_probabilities[0], atol=1e-5)
    as_array = generate(tiny, np.array([PROMPTS[0]] * 3), max_new_tokens=12, temperature=0)
    np.testing.assert_array_equal(as_array.tokens, np.repeat(found.tokens[:1], 3, axis=0))


def test_segments_of_the_prompt_change_nothing(tiny):
    prompts = [list(range(23)), list(range(8)), [1, 2, 3]]  # the second begins with a segment
    whole = generate(tiny, prompts, max_new_tokens=9, temperature=0)
    found = generate(tiny, prompts, max_new_tokens=9, temperature=0, prefill_segment=8)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    np.testing.assert_allclose(found.log_probabilities, whole.log_probabilities, atol=1e-5)
    _check_greedy(found, prompts, _full_logits(*tiny, _joined(prompts, found)))


def test_prompts_of_all_lengths_share_a_few_programs(tiny):
    with compilations() as counts:
        for length in range(1, 41):
            generate(tiny, [[1] * length], max_new_tokens=1 + length % 9, temperature=0, prefill_segment=32)
        for temperature, top_k, top_p in ((0.5, 3, 0.9), (1.5, 7, 0.2)):
            generate(tiny, [[1]], max_new_tokens=3, temperature=temperature, top_k=top_k, top_p=top_p)
    assert counts["_read"] <= 5  # 16 and 32 with padding and without, and 32 within a longer prompt
    assert counts["advance"] <= 2  # greedy, and with a temperature and filters


def test_stream_gives_the_tokens_of_generate_as_they_come(tiny):
    options = {"max_new_tokens": 6, "key": jax.random.key(3)}
    whole = generate(tiny, PROMPTS, **options)
    pieces = list(stream(tiny, PROMPTS, **options))
    np.testing.assert_array_equal(np.stack(pieces, axis=1), whole.tokens)
    heard = []
    called = generate(tiny, PROMPTS, on_token=lambda step, tokens: heard.append((step, *tokens)), **options)
    assert heard == [(step, *tokens) for step, tokens in enumerate(pieces)]
    np.testing.assert_array_equal(called.tokens, whole.tokens)
    np.testing.assert_array_equal(called.log_probabilities, whole.log_probabilities)


def test_stream_can_be_left_and_finished(tiny):
    tokens = stream(tiny, PROMPTS, max_new_tokens=6, temperature=0)
    first = next(tokens)
    found = tokens.finish()
    np.testing.assert_array_equal(found.tokens[:, 0], first)
    np.testing.assert_array_equal(
        found.tokens, generate(tiny, PROMPTS, max_new_tokens=6, temperature=0).tokens
    )
    assert list(tokens) == []


def test_callback_may_raise(tiny):
    def interrupted(step, tokens):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tiny, PROMPTS, max_new_tokens=6, temperature=0, on_token=interrupted)


def test_rows_end_with_a_stop_token_and_keep_their_state(tiny):
    options = {"max_new_tokens": 9, "key": jax.random.key(8)}
    free = generate(tiny, PROMPTS, **options)
    stops = [int(free.tokens[1, 3]), int(free.tokens[0, 5]), 31]
    found = generate(tiny, PROMPTS, stop_tokens=stops, pad_token=30, **options)
    assert found.lengths.min() < 9
    for row in range(3):
        hits = np.flatnonzero(np.isin(free.tokens[row], stops))
        length = int(hits[0]) + 1 if hits.size else 9
        assert found.lengths[row] == length
        np.testing.assert_array_equal(found.tokens[row, :length], free.tokens[row, :length])
        assert (found.tokens[row, length:] == 30).all()
        assert (found.log_probabilities[row, length:] == 0).all()
        assert found.state.position[row] == len(PROMPTS[row]) + length
    ended = generate(tiny, PROMPTS, **{**options, "max_new_tokens": int(found.lengths[1])})
    for kept, then in zip(jax.tree.leaves(found.state), jax.tree.leaves(ended.state), strict=True):
        np.testing.assert_array_equal(kept[1], then[1])


def test_loop_ends_early_when_all_rows_have(tiny):
    options = {"max_new_tokens": 50, "key": jax.random.key(8)}
    first = generate(tiny, PROMPTS, **options).tokens[:, 0]
    tokens = stream(tiny, PROMPTS, stop_tokens=first.tolist(), pad_token=9, **options)
    assert [step.tolist() for step in tokens] == [first.tolist()]
    found = tokens.finish()
    assert found.lengths.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(found.tokens, [[token] + [9] * 49 for token in first])


def test_repetition_penalty_counts_the_prompt_and_what_was_generated(tiny):
    found = generate(tiny, [list(range(16))], max_new_tokens=16, temperature=0, repetition_penalty=1e6)
    # A seen token has a positive logit divided to nothing, or a negative one multiplied to minus a lot.
    logits = _full_logits(*tiny, _joined([list(range(16))], found))
    seen = set(range(16))
    for step, token in enumerate(found.tokens[0].tolist()):
        fresh = [t for t in range(32) if t not in seen]
        if fresh and logits[0, 15 + step, fresh].max() > 1e-5:
            assert token == fresh[int(np.argmax(logits[0, 15 + step, fresh]))]
        seen.add(token)
    assert len(set(found.tokens[0].tolist())) > 8


def test_draws_depend_on_the_key_alone(tiny):
    first = generate(tiny, PROMPTS, max_new_tokens=12, temperature=3.0)
    again = generate(tiny, PROMPTS, max_new_tokens=12, temperature=3.0, key=jax.random.key(0))
    other = generate(tiny, PROMPTS, max_new_tokens=12, temperature=3.0, key=jax.random.key(1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any()
    fewer = generate(tiny, PROMPTS, max_new_tokens=5, temperature=3.0)
    np.testing.assert_array_equal(fewer.tokens, first.tokens[:, :5])


def test_both_stacks_take_at_every_length_what_the_full_forward_takes(two_stacks):
    model, params = two_stacks
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    found = generate(two_stacks, prompts, max_new_tokens=8, temperature=0, stack="both")
    rows = _joined(prompts, found)
    short, long = (_full_logits(model, params, rows, stack=stack) for stack in ("short", "long"))
    lengths = 1 + np.arange(short.shape[1])
    by_length = np.where((lengths > model.config.context_threshold)[:, None], long, short)
    _check_greedy(found, prompts, by_length)
    assert np.abs(short - long).max() > 0.1


@pytest.mark.parametrize(("count", "stack"), [(3, "short"), (4, "long")])
def test_stack_is_fixed_by_the_total_length(two_stacks, count, stack):
    found = generate(two_stacks, [[1, 2, 3, 4, 5], [6]], max_new_tokens=count, temperature=0)
    named = generate(two_stacks, [[1, 2, 3, 4, 5], [6]], max_new_tokens=count, temperature=0, stack=stack)
    assert found.state.stack == stack
    np.testing.assert_array_equal(found.log_probabilities, named.log_probabilities)


def test_bfloat16_generates_close_to_float32(tiny):
    model, params = tiny
    half = TemporalEigenstateNetwork(model.config, dtype=jnp.bfloat16)
    found = generate((half, params), PROMPTS, max_new_tokens=4, temperature=0, stop_tokens=[0])
    logits = _full_logits(model, params, _joined(PROMPTS, found))
    there = np.arange(4) < found.lengths[:, None]
    expected = np.where(there, _log_probabilities(found, PROMPTS, logits), 0)
    np.testing.assert_allclose(found.log_probabilities, expected, atol=0.05)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt"),
        ([[]], "prompt 0 is empty"),
        ([[1], []], "prompt 1 is empty"),
        (np.zeros((2, 0), np.int32), "prompt 0 is empty"),
        ([[1, 32]], "ids from 1 to 32; this vocabulary has 0 to 31"),
        ([[-1]], "ids from -1 to -1"),
        ([[0.5]], "float64; token ids are integers"),
        ([1, 2, 3], "prompt 0 is a single number"),
        (np.zeros((1, 2, 3), np.int32), r"array of shape \(2, 3\)"),
        ("text", "not str"),
        (7, "not int"),
    ],
)
def test_prompts_that_cannot_be_right_are_refused(tiny, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny, prompts, max_new_tokens=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
        ({"stop_tokens": [32]}, "stop_tokens has 32"),
        ({"prefill_segment": 0}, "prefill_segment must be"),
        ({"stack": "long"}, "two stacks"),
        ({"stack": "wide"}, "'wide' is not one of"),
    ],
)
def test_options_that_cannot_be_right_are_refused(tiny, options, message):
    with compilations() as counts, pytest.raises(ValueError, match=message):
        generate(tiny, [[1]], **{"max_new_tokens": 2, **options})
    assert not counts["_read"] + counts["advance"]


def test_positions_beyond_the_table_are_refused_before_anything_runs():
    network = _network(pos_emb_type="learned", max_seq_len=20, n_layers=1)
    with compilations() as counts, pytest.raises(ValueError, match="need 21 positions.*max_seq_len=20"):
        generate(network, [[1] * 5, [1] * 11], max_new_tokens=10)
    assert not counts
    found = generate(network, [[1] * 5, [1] * 11], max_new_tokens=9, temperature=0)
    assert (found.log_probabilities < 0).all()
    np.testing.assert_array_equal(found.state.position, [14, 20])


def test_networks_that_look_ahead_cannot_generate():
    model = TemporalEigenstateNetwork(
        TemporalEigenstateConfig.modern(**SIZES, layer=EigenstateLayer(anticausal_chunk=4))
    )
    with pytest.raises(ValueError, match="legacy variant"):
        generate((model, {}), [[1]], max_new_tokens=1)


def test_nan_in_the_parameters_is_told(tiny):
    model, params = tiny
    broken = jax.tree.map(lambda array: array * jnp.nan, params)
    with pytest.raises(ValueError, match="NaN after 0 new tokens"):
        generate((model, broken), [[1]], max_new_tokens=2)


def test_other_models_are_refused():
    ck = sj.load("checkpoints/ultra_sparse_sine.pt")
    with pytest.raises(ValueError, match="UltraSparseNet is no TemporalEigenstateNetwork"):
        generate(ck, [[1]], max_new_tokens=1)
    with pytest.raises(ValueError, match="give a checkpoint"):
        generate("model", [[1]], max_new_tokens=1)
