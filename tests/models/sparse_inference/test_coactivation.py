"""Neurons that act together come side by side, and the function stays the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.coactivation import check_order, coactivation_order
from sparsejax.models.sparse_inference.ffn_permute import permute_blocks, permute_ffn, permute_predictor
from sparsejax.models.sparse_inference.predictor import LowRankPredictor, MLPPredictor
from sparsejax.models.sparse_inference.predictor_exact import Dense
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn
from sparsejax.ops.sparse_ffn.block_strength import strength_kept


def _planted(groups, size, samples=200):
    """Groups of neurons that act together, shuffled; and the group of each."""
    draws = np.random.default_rng(0)
    active = (draws.random((samples, groups)) < 0.2) * draws.random((samples, groups))
    group_of = draws.permutation(np.repeat(np.arange(groups), size))
    noise = 0.02 * draws.random((samples, groups * size))
    return active[:, group_of] * (0.5 + draws.random(groups * size)) + noise, group_of


def test_the_strength_kept_of_no_blocks_and_of_no_strength():
    strengths = np.arange(8.0).reshape(2, 4)
    assert [strength_kept(strengths, 2, blocks) for blocks in (0, 2, 3)] == [0, 1, 1]
    assert strength_kept(np.zeros((2, 4)), 2, 1) == strength_kept(np.zeros((0, 4)), 2, 1) == 1


def test_planted_groups_are_found():
    strengths, group_of = _planted(24, 8)
    order = coactivation_order(strengths, 8)
    blocks = group_of[order].reshape(-1, 8)
    assert (blocks == blocks[:, :1]).all(axis=1).mean() > 0.9
    assert strength_kept(strengths[:, order], 8, 6) > strength_kept(strengths, 8, 6) + 0.3


def test_hot_neurons_come_first():
    strengths, _ = _planted(6, 4)
    strengths[:, [3, 11, 17]] = 1.0
    order = coactivation_order(np.where(strengths > 0.05, strengths, 0), 4, hot=3)
    assert {3, 11, 17} <= set(order[:4].tolist())
    assert sorted(order.tolist()) == list(range(24))


def test_units_stay_together():
    strengths, _ = _planted(8, 8)
    order = coactivation_order(strengths, 16, unit=4)
    assert check_order(order, 64, unit=4).shape == (64,)
    with pytest.raises(ValueError, match="tears apart blocks of 4 neurons"):
        check_order(coactivation_order(strengths, 16), 64, unit=4)
    moved = permute_blocks({"codes": jnp.arange(16)}, order, unit=4)["codes"]
    np.testing.assert_array_equal(moved, order[::4] // 4)


def test_the_last_block_may_be_shorter():
    strengths, _ = _planted(5, 4)
    order = coactivation_order(strengths[:, :18], 4)
    assert sorted(order.tolist()) == list(range(18))
    assert coactivation_order(np.zeros((3, 5)), 2).shape == (5,)


def test_outputs_and_scores_stay_the_same():
    keys = iter(jax.random.split(jax.random.key(0), 9))
    draw = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    weights = FFNWeights(draw(12, 4), draw(12, 3), draw(12, 4), draw(12), draw(12), draw(3))
    order = np.random.default_rng(0).permutation(12)
    inputs, moved = draw(5, 4), permute_ffn(weights, order)
    outputs, wanted = (dense_ffn(inputs, each, activation="swiglu") for each in (moved, weights))
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)
    for predictor in (
        LowRankPredictor(draw(2, 4), draw(12, 2), jnp.arange(12.0)),
        MLPPredictor.init(jax.random.key(3), 4, 12, rank=2),
    ):
        scores = permute_predictor(predictor, order).scores(inputs)
        np.testing.assert_allclose(scores, predictor.scores(inputs)[:, order], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coactivation_order(-np.ones((2, 4)), 2), "without negative values"),
        (lambda: coactivation_order(np.ones((2, 4)), 0), "unit 1 must divide block_size 0"),
        (lambda: coactivation_order(np.ones((2, 6)), 4, unit=4), "unit 4 must divide"),
        (lambda: coactivation_order(np.ones((2, 4)), 2, hot=5), "hot must be 0 to 4"),
        (
            lambda: permute_ffn(FFNWeights(jnp.ones((3, 2)), jnp.ones((3, 2))), [0, 0, 1]),
            "no permutation of 3",
        ),
        (lambda: permute_predictor(Dense(3), [0, 1, 2]), "a Dense is not permuted"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
