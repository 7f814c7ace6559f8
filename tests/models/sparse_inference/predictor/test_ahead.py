"""Looking ahead: which layer is read, and that it is enough where layers change their inputs little."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import LookAhead, SparsityConfig, calibrate, predictor_statistics
from sparsejax.models.sparse_inference.predictor.ahead import lag_of, scores_of_layer
from sparsejax.ops.sparse_ffn import FFNWeights

DRAWS = np.random.default_rng(0)
D, F = 12, 40


def draw(*shape):
    return DRAWS.normal(size=shape).astype(np.float32)


WEIGHTS = FFNWeights(draw(F, D), draw(F, D), b_in=draw(F))
BEFORE = draw(600, 6) @ draw(6, D)
AFTER = BEFORE @ (np.eye(D, dtype=np.float32) + 0.1 * draw(D, D)) + 0.1 * draw(600, D)
TOP = SparsityConfig.with_top_k(8)


def test_calibrated_on_the_layer_before():
    pairs = [(BEFORE[:250], AFTER[:250]), (BEFORE[250:500], AFTER[250:500])]
    found = calibrate(pairs, WEIGHTS, TOP, activation="relu", rank=10, lag=1)
    assert lag_of(found.predictor) == 1 and found.samples == 500
    test = (BEFORE[500:], AFTER[500:])
    measured = predictor_statistics(test, found.predictor, WEIGHTS, TOP, activation="relu")
    own = calibrate(AFTER[:500], WEIGHTS, TOP, activation="relu", rank=10)
    best = predictor_statistics(AFTER[500:], own.predictor, WEIGHTS, TOP, activation="relu")
    assert 0.8 < measured.recall < best.recall
    shown = scores_of_layer(found.predictor, [BEFORE[500:], AFTER[500:]], 1)
    np.testing.assert_array_equal(shown, found.predictor.scores(BEFORE[500:]))


def test_it_may_read_another_width():
    narrow = BEFORE[:, :10]
    found = calibrate((narrow[:500], AFTER[:500]), WEIGHTS, TOP, activation="relu", rank=6, lag=1)
    assert found.predictor.shape == (F, 10)
    test = (narrow[500:], AFTER[500:])
    assert predictor_statistics(test, found.predictor, WEIGHTS, TOP, activation="relu").recall > 0.8


def test_what_is_refused():
    ahead = LookAhead(calibrate(AFTER, WEIGHTS, TOP, activation="relu", rank=2).predictor, lag=2)
    with pytest.raises(ValueError, match="layer 1 looks 2 layers back"):
        scores_of_layer(ahead, [jnp.asarray(AFTER)], 1)
    with pytest.raises(ValueError, match="needs the inputs of layer 1"):
        scores_of_layer(ahead, [jnp.asarray(AFTER)], 3)
    with pytest.raises(ValueError, match="tuples of two arrays"):
        calibrate([BEFORE], WEIGHTS, TOP, activation="relu", lag=1)
    with pytest.raises(ValueError, match="must be arrays, not tuple"):
        calibrate((BEFORE, AFTER), WEIGHTS, TOP, activation="relu")
    with pytest.raises(ValueError, match="500 samples do not go with 600"):
        calibrate((BEFORE[:500], AFTER), WEIGHTS, TOP, activation="relu", lag=1)
