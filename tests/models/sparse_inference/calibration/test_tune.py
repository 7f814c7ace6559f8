"""Training: it learns what no linear predictor can, keeps the better one, and refuses what it cannot use."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import LowRankPredictor, MLPPredictor
from sparsejax.models.sparse_inference.calibration.tune import mlp_of_low_rank, tune

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(512, 4)).astype(np.float32)
FAR = np.abs(X @ DRAWS.normal(size=(4, 6)).astype(np.float32)) > 1.5  # even in x


def test_the_same_network():
    low = LowRankPredictor(*(jnp.asarray(DRAWS.normal(size=s), jnp.float32) for s in ((2, 4), (6, 2), (6,))))
    np.testing.assert_allclose(mlp_of_low_rank(low).scores(X), low.scores(X), atol=1e-5)


def test_what_is_not_linear_is_learned():
    start = MLPPredictor.init(jax.random.key(0), 4, 6, rank=16)
    found = tune(start, X, FAR, steps=300)
    assert found.recall_before < 0.6 and found.recall_after > 0.9
    assert found.losses[-1] < 0.5 * found.losses[0]


def test_the_better_one_is_kept():
    good = tune(MLPPredictor.init(jax.random.key(0), 4, 6, rank=16), X, FAR, steps=300).predictor
    found = tune(good, X, np.roll(FAR, 1, axis=0), steps=1, learning_rate=1e-6)
    assert found.predictor is good or found.recall_after > found.recall_before


def test_what_is_refused():
    start = LowRankPredictor(jnp.ones((1, 4)), jnp.ones((6, 1)))
    for arguments, options, message in (
        ((X, FAR[:5]), {"steps": 1}, "rows of the same samples"),
        ((X[:1], FAR[:1]), {"steps": 1}, "two or more"),
        ((X, FAR), {"steps": 0}, "steps must be"),
        ((X, FAR), {"steps": 1, "batch_size": 0}, "batch_size must be"),
        ((X, FAR), {"steps": 1, "learning_rate": 0}, "learning_rate must be"),
        ((np.full_like(X, np.nan), FAR), {"steps": 1}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(start, *arguments, **options)
