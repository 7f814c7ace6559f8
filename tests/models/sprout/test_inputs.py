"""Calls that cannot be right are refused in one line before anything is compiled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.errors import MissingKeyError
from sparsejax.models.sprout import SproutConfig
from sparsejax.models.sprout.inputs import check_inputs, reference_call

CONFIG = SproutConfig(vocab_size=5, d_model=4, d_ff=8, n_heads=2, n_layers=2, max_len=8, dropout=0.0)
TOKENS = np.array([[0, 4, 2], [1, 1, 3]])
MASK = np.zeros((2, 3), bool)


def refused(words, config, *inputs, **options):
    with pytest.raises(ValueError, match=words) as caught:
        check_inputs(config, *inputs, **options)
    assert "\n" not in str(caught.value)


def test_what_fits_is_taken():
    check_inputs(CONFIG, TOKENS)
    check_inputs(CONFIG, jnp.asarray(TOKENS, jnp.uint8), train=True, straight_through=True)
    check_inputs(CONFIG, TOKENS, top_k=0, path="block", mixer="always", method="hidden")
    check_inputs(CONFIG, TOKENS, top_k=10**6, key_padding_mask=MASK, attention_mask=MASK.astype(np.int64))
    check_inputs(CONFIG, TOKENS, top_k=(None, np.int64(3)), attention_mask=jnp.asarray(~MASK))
    check_inputs(CONFIG, TOKENS, top_k=np.array([3, 4]))
    check_inputs(CONFIG, TOKENS, top_k=jnp.asarray(3))
    check_inputs(CONFIG.ffn, np.zeros((7, 4), np.float32), top_k=2, train=True)
    check_inputs(CONFIG.ffn, jnp.zeros(4, jnp.bfloat16), path="gather")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.array([[0, 5]]), "from 0 to 5; this vocabulary has 0 to 4"),
        (np.array([[-1, 2]]), "from -1 to 2"),
        (np.array([[2**40]]), "from 1099511627776"),
        (np.array([0, 1]), r"\(2,\) do not fit: \(b, t\) is needed"),
        (np.zeros((2, 0), int), "an empty sequence"),
        (np.zeros((1, 9), int), "9 tokens; the position table has max_len=8"),
        (np.zeros((2, 3), np.float32), "tokens are float32"),
        (np.zeros((2, 3), bool), "tokens are bool"),
        ([[1, 2]], "tokens are a list"),
    ],
)
def test_tokens_that_cannot_be_are_refused(tokens, words):
    refused(words, CONFIG, tokens)


@pytest.mark.parametrize(
    ("top_k", "words"),
    [
        (-1, "at least 0, not -1"),
        (2.5, "whole number, not 2.5"),
        (True, "whole number, not True"),
        ("3", "whole number, not '3'"),
        ((1, 2, 3), "3 entries; the network has 2 layers"),
        ((1, -2), "at least 0, not -2"),
        ((1, (2,)), "whole number"),
        ([1, 2], "is a list; give a tuple"),
        (np.array([1, -2]), "at least 0, not -2"),
        (np.array([1.0, 2.0]), "array of float64; integers"),
        (np.array(1.0), "array of float64; integers"),
        (np.ones((2, 2), int), r"shape \(2, 2\) does not fit"),
        (np.ones(3, int), "3 entries"),
    ],
)
def test_counts_that_cannot_be_are_refused(top_k, words):
    refused(words, CONFIG, TOKENS, top_k=top_k)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key_padding_mask": MASK.astype(int)}, "key_padding_mask is int64; bool is needed, True = ignore"),
        ({"key_padding_mask": MASK.astype(np.float32)}, "key_padding_mask is float32"),
        ({"key_padding_mask": MASK[:, :2]}, r"\(2, 2\) does not fit tokens of shape \(2, 3\)"),
        ({"key_padding_mask": MASK.tolist()}, "key_padding_mask is a list"),
        ({"attention_mask": MASK.astype(np.float32)}, "adds floats to its scores"),
        ({"attention_mask": MASK.astype(int) + 2}, "other numbers than 0 and 1"),
        ({"attention_mask": MASK.astype(int) - 1}, "other numbers than 0 and 1"),
        ({"attention_mask": MASK[:1]}, r"\(1, 3\) does not fit"),
        ({"path": "dense"}, "path='dense' is not known; give one of 'auto'"),
        ({"mixer": "on"}, "mixer='on' is not known"),
        ({"train": 1}, "train must be True or False"),
        ({"straight_through": "yes"}, "straight_through must be True or False"),
        ({"mask": MASK}, "no option 'mask'; it takes 'top_k'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    refused(words, CONFIG, TOKENS, **options)


def test_a_feed_forward_part_takes_numbers_and_no_masks():
    refused(r"\(..., 4\) is needed", CONFIG.ffn, np.zeros((2, 3), np.float32))
    refused("floating numbers", CONFIG.ffn, TOKENS)
    refused("no option 'key_padding_mask'", CONFIG.ffn, np.zeros((2, 4), np.float32), key_padding_mask=MASK)
    refused("top_k of shape", CONFIG.ffn, np.zeros((2, 4), np.float32), top_k=np.array([1, 2]))


def test_the_number_of_inputs_is_checked():
    refused("one array of tokens", CONFIG)
    refused("not 2 arrays", CONFIG, TOKENS, MASK)


def test_dropout_needs_a_key_that_a_checkpoint_does_not_take():
    refused("needs a key", dataclasses.replace(CONFIG, dropout=0.1), TOKENS, train=True)
    mixed = dataclasses.replace(CONFIG, dropout=0.1, mixer_hidden=4).ffn
    refused("needs a key", mixed, np.zeros((2, 4), np.float32), train=True)


def test_inside_another_jit_only_shapes_are_checked():
    def call(tokens, mask, top_k):
        check_inputs(CONFIG, tokens, attention_mask=mask, top_k=top_k)
        return tokens

    jax.eval_shape(call, jnp.full((2, 3), 9), jnp.full((2, 3), 7), jnp.asarray(-1))
    with pytest.raises(ValueError, match="max_len=8"):
        jax.eval_shape(call, jnp.zeros((2, 9), int), None, None)


def test_constants_inside_another_jit_are_checked_by_value():
    within, beyond, count = jnp.array([[0, 4]]), jnp.array([[0, 5]]), jnp.asarray(3)

    def call(tokens):
        check_inputs(CONFIG, tokens, top_k=count)
        return count

    jax.eval_shape(lambda: call(within))
    with pytest.raises(ValueError, match="0 to 4"):
        jax.eval_shape(lambda: call(beyond))


def test_references_name_their_inputs():
    arrays = {"input_ids": TOKENS, "top_k": np.array([3, -1]), "key_padding_mask": MASK}
    tokens, options = reference_call(CONFIG, arrays)
    assert tokens is TOKENS and options == {"top_k": (3, None), "key_padding_mask": MASK}
    assert reference_call(CONFIG.ffn, {"x": MASK, "top_k": np.array(2)}) == (MASK, {"top_k": 2})
    with pytest.raises(MissingKeyError, match="'ids', 'input_ids', 'tokens'"):
        reference_call(CONFIG, {"x": TOKENS})
