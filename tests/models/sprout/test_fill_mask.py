"""Masked tokens guessed from ids."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.sprout import SproutConfig, SproutFFNConfig, SproutLM
from sparsejax.models.sprout.fill_mask import fill_mask

CONFIG = SproutConfig(vocab_size=11, d_model=8, d_ff=16, n_heads=2, n_layers=1, max_len=6)


@pytest.fixture(scope="module")
def ck():
    params = jax.jit(SproutLM(CONFIG).init)(jax.random.key(0), np.zeros((1, 2), int))["params"]
    return sj.Checkpoint("sprout", "v1", CONFIG, params)


def test_candidates_are_the_most_probable_tokens_of_every_mask(ck):
    ids = [2, 4, 7, 4, 3]
    for top_k in (None, 4):
        found = fill_mask(ck, ids, mask_id=4, k=3, top_k=top_k)
        logits = ck.apply(np.asarray([ids], np.int32), top_k=top_k).logits[0, [1, 3]]
        assert found.places.tolist() == [1, 3]
        np.testing.assert_array_equal(found.ids, np.argsort(-np.asarray(logits), axis=-1)[:, :3])
        expected = np.sort(np.asarray(jax.nn.softmax(logits)), axis=-1)[:, :-4:-1]
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)


def test_what_cannot_be_filled_is_refused(ck):
    with pytest.raises(ValueError, match="no mask in the text"):
        fill_mask(ck, [2, 7, 3], mask_id=4)
    for k in (0, 12):
        with pytest.raises(ValueError, match=f"between 1 and the vocabulary's 11 tokens, not {k}"):
            fill_mask(ck, [4], mask_id=4, k=k)
    with pytest.raises(ValueError, match="max_len=6"):
        fill_mask(ck, [4] * 7, mask_id=4)
    part = sj.Checkpoint("sprout", "v1", SproutFFNConfig(8, 16), {})
    with pytest.raises(ValueError, match="guesses no words"):
        fill_mask(part, [4], mask_id=4)
