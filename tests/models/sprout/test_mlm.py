"""Masking by the published rule, and the loss of guesses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout.mlm import MaskingRule, mask_tokens, mlm_accuracy, mlm_apply, mlm_loss
from sparsejax.ops.token_ids import IGNORED
from tests import golden


@pytest.mark.golden("mlm_masking")
def test_recorded_draws_give_the_published_inputs_and_labels():
    arrays = golden.arrays("sprout", "mlm_masking")
    draws = [arrays[name] for name in ("original_ids", "bern_mask", "bern_80", "bern_50", "random_words")]
    inputs, labels = mlm_apply(*draws, special_ids=[0, 1, 2, 3, 4], mask_id=4)
    assert (np.asarray(inputs) == arrays["input_ids"]).all()
    assert (np.asarray(labels) == arrays["labels"]).all()


def test_drawn_masks_have_the_published_shares_and_spare_special_tokens():
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 50, (200, 100)), jnp.int32)
    rule = MaskingRule(vocab_size=50, mask_id=4, special_ids=(0, 1, 2, 3, 4))
    inputs, labels = jax.tree.map(np.asarray, mask_tokens(jax.random.key(1), ids, rule))
    hidden = labels != IGNORED
    assert not (np.asarray(ids)[hidden] < 5).any()
    assert (labels[hidden] == np.asarray(ids)[hidden]).all()
    assert (inputs[~hidden] == np.asarray(ids)[~hidden]).all()
    assert hidden[np.asarray(ids) > 4].mean() == pytest.approx(0.15, abs=0.01)
    assert (inputs[hidden] == 4).mean() == pytest.approx(0.8 + 0.1 / 50, abs=0.03)
    assert (inputs[hidden] == labels[hidden]).mean() == pytest.approx(0.1 + 0.1 / 50, abs=0.03)
    assert set(np.unique(inputs[hidden & (inputs != labels)])) >= {0, 1, 2, 3, 4}  # words may be special ones


def test_loss_is_the_mean_over_what_counts():
    logits = jax.random.normal(jax.random.key(0), (2, 5, 7))
    labels = jnp.asarray([[1, IGNORED, 3, IGNORED, IGNORED], [IGNORED, 6, IGNORED, IGNORED, 0]])
    loss, count = mlm_loss(logits, labels)
    places = np.argwhere(np.asarray(labels) != IGNORED)
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    expected = -np.mean([log_probabilities[row, place, labels[row, place]] for row, place in places])
    assert (float(loss), float(count)) == (pytest.approx(expected, rel=1e-6), 4)
    best = [np.asarray(logits)[row, place].argmax() == labels[row, place] for row, place in places]
    assert float(mlm_accuracy(logits, labels)) == np.mean(best)


def test_nothing_counted_is_zero_with_finite_gradients():
    labels = jnp.full((1, 3), IGNORED)
    loss, count = mlm_loss(jnp.ones((1, 3, 4)), labels)
    assert (float(loss), float(count), float(mlm_accuracy(jnp.ones((1, 3, 4)), labels))) == (0, 0, 0)
    gradients = jax.grad(lambda logits: mlm_loss(logits, labels)[0])(jnp.ones((1, 3, 4)))
    assert gradients.tolist() == np.zeros((1, 3, 4)).tolist()
