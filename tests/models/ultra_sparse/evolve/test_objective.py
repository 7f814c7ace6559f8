from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve import evaluate, objective
from sparsejax.models.ultra_sparse.evolve.objective import loss_of
from sparsejax.models.ultra_sparse.model import forward
from tests.models.ultra_sparse.evolve.batches import random_net


def batch(rows=20, columns=6, outputs=3, seed=0):
    draws = np.random.default_rng(seed)
    return draws.normal(size=(rows, columns)).astype(np.float32), draws.normal(size=(rows, outputs)).astype(
        np.float32
    )


def test_loss_is_the_mean_over_rows_and_outputs():
    features, targets = batch()
    config = UltraSparseConfig.fixed_k(6, 4, 3, 2)
    params = random_net(config)
    expected = np.mean((np.asarray(forward(config, params, features)) - targets) ** 2)
    np.testing.assert_allclose(evaluate(config, params, objective(features, targets)), expected, rtol=1e-6)


def test_rows_of_weight_zero_change_nothing():
    features, targets = batch()
    config = UltraSparseConfig.fixed_k(6, 4, 3, 2)
    params = random_net(config)
    weights = np.r_[np.ones(12), np.zeros(8)]
    whole = evaluate(config, params, objective(features, targets, row_weights=weights))
    np.testing.assert_allclose(
        whole, evaluate(config, params, objective(features[:12], targets[:12])), rtol=1e-6
    )


def test_cross_entropy_of_labels_is_that_of_their_one_hot_rows():
    features, _ = batch()
    labels = np.arange(20) % 3
    logits = jnp.asarray(batch(seed=1)[1]).T
    by_label = loss_of(logits, objective(features, labels, loss="cross_entropy"))
    by_row = loss_of(logits, objective(features, np.eye(3)[labels], loss="cross_entropy"))
    shares = np.exp(logits) / np.exp(logits).sum(0)
    expected = -np.mean(np.log(shares[labels, np.arange(20)]))
    np.testing.assert_allclose([by_label, by_row], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, t: (f[0], t, {}), "rows and columns"),
        (lambda f, t: (f[:0], t[:0], {}), "rows and columns"),
        (lambda f, t: (f, t[:-1], {}), "do not fit 20 rows"),
        (lambda f, t: (np.where(np.arange(20)[:, None] == 7, np.nan, f), t, {}), r"1 of 20 rows \(7\)"),
        (lambda f, t: (f, np.where(np.arange(20)[:, None] > 17, np.inf, t), {}), "in 2 of 20 rows"),
        (lambda f, t: (f, t, {"loss": "hinge"}), "'hinge' is not one of"),
        (lambda f, t: (f, t, {"row_weights": np.zeros(20)}), "not all zero"),
        (lambda f, t: (f, t, {"row_weights": -np.ones(20)}), "non-negative"),
        (lambda f, t: (f, t[:, 0], {"loss": "cross_entropy"}), "integer labels"),
        (lambda f, t: (f.astype(complex), t, {}), "real numbers"),
    ],
)
def test_bad_batches_are_refused_in_words(change, message):
    features, targets, options = change(*batch())
    with pytest.raises(ValueError, match=message):
        objective(features, targets, **options)
