"""Calls that cannot be right are refused in one line before anything is compiled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ten import EigenstateLayer, TemporalEigenstateConfig, initial_state
from sparsejax.models.ten.inputs import check_inputs

CONFIG = TemporalEigenstateConfig(
    vocab_size=5, dim=4, n_layers=2, num_eigenstates=4, max_seq_len=8, variant="modern", dropout=0.0
)
TWO_STACKS = dataclasses.replace(CONFIG, long_layer=EigenstateLayer(memory=True))
LEGACY = dataclasses.replace(CONFIG, layer=EigenstateLayer(anticausal_chunk=4))
ENDLESS = dataclasses.replace(CONFIG, pos_emb_type="none")
TOKENS = np.array([[0, 4, 2], [1, 1, 3]])


def after(config, tokens, batch=2):
    state = initial_state(config, batch)
    return state.replace(position=jnp.full((batch,), tokens, jnp.int32))


def refused(words, config, *inputs, **options):
    with pytest.raises(ValueError, match=words) as caught:
        check_inputs(config, *inputs, **options)
    assert "\n" not in str(caught.value)


def test_what_fits_is_taken():
    check_inputs(CONFIG, TOKENS)
    check_inputs(CONFIG, jnp.asarray(TOKENS, jnp.uint8), train=True)
    check_inputs(CONFIG, np.zeros((2, 3, 4), np.float32))
    check_inputs(CONFIG, jnp.zeros((2, 3, 4), jnp.bfloat16), backend="scan", stack="short")
    check_inputs(CONFIG, TOKENS, after(CONFIG, 5))
    check_inputs(CONFIG, TOKENS, state=after(CONFIG, 5), segment_ids=np.ones((2, 3), np.int32))
    check_inputs(TWO_STACKS, TOKENS, stack="both", method="hidden")
    check_inputs(ENDLESS, np.zeros((1, 9), int), after(ENDLESS, 10**6, 1))
    check_inputs(LEGACY, TOKENS)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.array([[0, 5]]), "from 0 to 5; this vocabulary has 0 to 4"),
        (np.array([[-1, 2]]), "from -1 to 2"),
        (np.array([[2**40]]), "from 1099511627776"),
        (np.array([0, 1]), r"\(2,\) do not fit: \(b, t\) is needed"),
        (np.zeros((1, 3, 4), int), r"\(b, t\) is needed"),
        (np.zeros((2, 0), int), "an empty sequence"),
        (np.zeros((2, 0, 4), np.float32), "an empty sequence"),
        (np.zeros((2, 3), np.float32), r"\(b, t, 4\) is needed"),
        (np.zeros((2, 3, 5), np.float32), r"\(b, t, 4\) is needed"),
        (np.zeros((2, 3), bool), "tokens are bool"),
        (np.zeros((2, 3), complex), "tokens are complex128"),
        ([[1, 2]], "tokens are a list"),
        (np.zeros((1, 9), int), r"9 positions.*max_seq_len=8.*pos_emb_type=\"none\""),
        (np.zeros((1, 9, 4), np.float32), "max_seq_len=8"),
    ],
)
def test_tokens_that_cannot_be_are_refused(tokens, words):
    refused(words, CONFIG, tokens)


def test_positions_count_what_the_state_has_read():
    check_inputs(CONFIG, TOKENS, after(CONFIG, 5))
    refused("9 positions", CONFIG, TOKENS, after(CONFIG, 6))
    rows = after(CONFIG, 0).replace(position=jnp.array([0, 6]))
    refused("9 positions", CONFIG, TOKENS, rows)


def test_positions_count_from_the_start_of_each_document():
    tokens, ids = np.zeros((1, 12), int), np.array([[7] * 4 + [8] * 8])
    check_inputs(CONFIG, tokens, segment_ids=ids)
    refused("9 positions", CONFIG, tokens, segment_ids=np.array([[7] * 3 + [8] * 9]))
    refused("12 positions", CONFIG, tokens, segment_ids=np.zeros((1, 12), int))
    check_inputs(CONFIG, tokens, after(CONFIG, 4, 1), segment_ids=ids)
    refused("9 positions", CONFIG, tokens, after(CONFIG, 5, 1), segment_ids=ids)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment_ids": np.zeros((2, 4), int)}, r"\(2, 4\) do not fit tokens of shape \(2, 3\)"),
        ({"segment_ids": np.zeros((2, 3))}, "array of integers"),
        ({"stack": "long"}, "two stacks; this one has one"),
        ({"stack": "both"}, "two stacks"),
        ({"stack": "middle"}, "'middle' is not known"),
        ({"stack": -1}, "-1 is not known"),
        ({"key_padding_mask": TOKENS}, "no option 'key_padding_mask'"),
        ({"state": after(CONFIG, 0, 3)}, "this network and batch"),
        ({"state": after(dataclasses.replace(CONFIG, n_layers=1), 0)}, "other layers"),
        ({"state": after(dataclasses.replace(CONFIG, num_eigenstates=8), 0)}, "this network and batch"),
        ({"state": TOKENS}, "not ndarray"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    refused(words, CONFIG, TOKENS, **options)


def test_a_state_belongs_to_its_stack():
    short = after(TWO_STACKS, 0)
    check_inputs(TWO_STACKS, TOKENS, short, stack="short")
    refused(
        "the state carries stack 'short', not 'long'; start with", TWO_STACKS, TOKENS, short, stack="long"
    )


def test_the_number_of_inputs_is_checked():
    refused("not 0", CONFIG)
    refused("not 4", CONFIG, TOKENS, None, None, None)
    refused("'state' is given twice", CONFIG, TOKENS, None, state=None)


def test_legacy_chunks_take_neither_state_nor_documents():
    refused("cannot be streamed", LEGACY, TOKENS, after(CONFIG, 0))
    refused("cannot be streamed or packed", LEGACY, TOKENS, segment_ids=np.zeros((2, 3), int))


def test_dropout_needs_a_key_that_a_checkpoint_does_not_take():
    refused("needs a key", dataclasses.replace(CONFIG, dropout=0.1), TOKENS, train=True)


def test_inside_another_jit_only_shapes_are_checked():
    def call(tokens, segment_ids, state):
        check_inputs(CONFIG, tokens, state, segment_ids)
        return tokens

    state = after(CONFIG, 100)
    jax.eval_shape(call, jnp.full((2, 3), 9), jnp.zeros((2, 3), int), state)
    with pytest.raises(ValueError, match="an empty sequence"):
        jax.eval_shape(call, jnp.zeros((2, 0), int), None, None)


def test_constants_inside_another_jit_are_checked_by_value():
    beyond = jnp.array([[CONFIG.vocab_size]])
    within = jnp.array([[CONFIG.vocab_size - 1]])
    jax.eval_shape(lambda: check_inputs(CONFIG, within))
    with pytest.raises(ValueError, match="token ids go from"):
        jax.eval_shape(lambda: check_inputs(CONFIG, beyond))
