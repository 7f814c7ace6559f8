"""The neurons of an FFN in another order: the function stays the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.ffn.permute import permute_blocks, permute_ffn, permute_predictor
from sparsejax.models.sparse_inference.predictor.exact import Dense
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor, MLPPredictor
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn
from sparsejax.ops.sparse_ffn.coactivation import coactivation_order


def test_blocks_move_whole():
    order = coactivation_order(np.random.default_rng(0).random((20, 64)), 16, unit=4)
    moved = permute_blocks({"codes": jnp.arange(16)}, order, unit=4)["codes"]
    np.testing.assert_array_equal(moved, order[::4] // 4)


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
        (
            lambda: permute_ffn(FFNWeights(jnp.ones((3, 2)), jnp.ones((3, 2))), [0, 0, 1]),
            "no permutation of its 3",
        ),
        (lambda: permute_predictor(Dense(3), [0, 1, 2]), "a Dense is not permuted"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
