"""`sparse_fit`: the inputs it finds, what it leaves alone, chains, and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.hybrid import Hybrid, sparse_fit
from sparsejax.models.ultra_sparse.evolve.objective import evaluate, objective
from sparsejax.models.ultra_sparse.evolve.polish import flatten
from sparsejax.models.ultra_sparse.features import LEAK_COLUMNS, expand_input
from sparsejax.models.ultra_sparse.model import forward

KEY = jax.random.key(0)
COLUMNS, CONSTANT, FORBIDDEN = 40, 30, 31
NET = UltraSparseConfig.fixed_k(COLUMNS, 4, 1, 2, "linear")
SHORT = {"rounds": 100, "final_steps": 100, "ridge": 1e-5}


def planted(rows, seed):
    """Two linear effects and an even one among 40 columns; noise variance 0.01."""
    rng = np.random.default_rng(seed)
    features = rng.random((rows, COLUMNS)).astype(np.float32)
    features[:, CONSTANT] = 1
    even = 2 * (2 * features[:, 17] - 1) ** 2
    return features, 2 * features[:, 3] - features[:, 8] + even + 0.1 * rng.standard_normal(rows)


@pytest.fixture(scope="module")
def fits():
    allowed = np.arange(COLUMNS) != FORBIDDEN
    return sparse_fit(KEY, NET, objective(*planted(300, 0)), chains=3, allowed=allowed, **SHORT)


def test_finds_the_planted_columns_and_predicts_new_rows(fits):
    best = jax.tree.map(lambda leaf: leaf[np.argmin(fits.loss)], fits.params)
    assert {3, 8, 17} <= set(best["layer_0"]["indices"].ravel().tolist())
    features, targets = planted(1000, 1)
    error = np.mean((forward(NET, best, features)[:, 0] - targets) ** 2)
    assert 0.009 < error < 0.02


def test_reads_no_constant_or_forbidden_column_and_reports_what_it_found(fits):
    assert not np.isin(fits.params["layer_0"]["indices"], [CONSTANT, FORBIDDEN]).any()
    goal = objective(*planted(300, 0))
    for number in range(3):
        own = jax.tree.map(lambda leaf, number=number: leaf[number], fits.params)
        assert float(fits.loss[number]) == pytest.approx(float(evaluate(NET, own, goal)), rel=1e-3)
        assert float(fits.max_weight[number]) == float(np.abs(flatten(own)).max())
    assert fits.history.loss.shape == (3, Hybrid(NET, 100, final_steps=100).rounds)
    assert (fits.history.loss[:, -1] < 0.1 * np.var(planted(300, 0)[1])).all()
    assert (fits.history.temperature[:, -1] == 0).all()


def test_rows_of_weight_zero_change_nothing_under_vmap_over_goals():
    features, targets = planted(60, 2)
    weights = np.r_[np.ones(60), np.zeros(9)]
    with jax.enable_x64(True):
        goals = [
            objective(
                np.concatenate([features.astype(float), np.full((9, COLUMNS), junk)]),
                np.r_[targets, np.full(9, junk)],
                row_weights=weights,
            )
            for junk in (1.0, 1e3)
        ]
        fit = jax.vmap(lambda goal: sparse_fit(KEY, NET, goal, rounds=5, steps=5, final_steps=0, ridge=1e-3))
        result = fit(jax.tree.map(lambda *leaves: jnp.stack(leaves), *goals))
        np.testing.assert_array_equal(*result.params["layer_0"]["indices"])
        np.testing.assert_allclose(*result.loss, rtol=1e-9)


def test_a_price_keeps_chance_correlations_out():
    features, _ = planted(300, 0)
    noise = np.random.default_rng(5).standard_normal(300)
    goal, allowed = objective(features, features[:, 3] + noise), np.ones(COLUMNS, bool)
    read = []
    for price in (0.0, 2.0):
        fits = sparse_fit(KEY, NET, goal, chains=3, column_price=price, allowed=allowed, **SHORT)
        read.append(np.mean([len(np.unique(table)) for table in fits.params["layer_0"]["indices"]]))
    assert read[1] <= read[0] - 2


def test_cross_entropy_finds_the_columns_of_the_classes():
    features = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    labels = (features[:, 3] > 0).astype(int) + (features[:, 8] > 0.5)
    config = UltraSparseConfig.fixed_k(20, 4, 3, 1, "linear")
    goal = objective(features, labels, loss="cross_entropy")
    result = sparse_fit(KEY, config, goal, rounds=20, steps=10, final_steps=50, ridge=1e-4, start_greed=0)
    assert {3, 8} <= set(result.params["layer_0"]["indices"].ravel().tolist())
    assert np.mean(forward(config, result.params, features).argmax(-1) == labels) > 0.97


def test_sine_without_the_columns_that_are_the_answer():
    with jax.enable_x64(True):
        train, dense = np.linspace(-2 * np.pi, 2 * np.pi, 100), np.linspace(-6.2, 6.2, 1001)
        allowed = ~np.isin(np.arange(256), LEAK_COLUMNS["trained"])
        config = UltraSparseConfig()
        goal = objective(expand_input(train), np.sin(train))
        result = sparse_fit(KEY, config, goal, rounds=200, ridge=1e-10, allowed=allowed, chains=4)
        features = expand_input(dense)
        outputs = jax.jit(jax.vmap(lambda params: forward(config, params, features)))(result.params)
        errors = np.mean((np.asarray(outputs)[:, :, 0] - np.sin(dense)) ** 2, axis=1)
        best = errors[np.argmin(np.asarray(result.loss))]
    # The published annealer reaches 2.5e-3 on its own grid after 20,000 steps.
    assert np.median(errors) < 2e-4
    assert best < 1e-4


def test_refuses_what_it_cannot_fit():
    goal = objective(*planted(50, 0))
    with pytest.raises(ValueError, match="one sparse tanh layer"):
        sparse_fit(KEY, UltraSparseConfig.dense(COLUMNS), goal)
    with pytest.raises(ValueError, match="only 1 of 40 columns vary and are allowed"):
        sparse_fit(KEY, NET, goal, allowed=np.arange(COLUMNS) == 3)
    with pytest.raises(ValueError, match="only 0 of 40 columns vary"):
        sparse_fit(KEY, NET, objective(np.ones((50, COLUMNS)), np.ones(50)))
    with pytest.raises(ValueError, match=r"allowed has shape \(3,\)"):
        sparse_fit(KEY, NET, goal, allowed=np.ones(3, bool))
    with pytest.raises(ValueError, match="reads 41 inputs per neuron of only 40"):
        UltraSparseConfig.fixed_k(COLUMNS, 4, 1, 41)
    with pytest.raises(ValueError, match="the net has 40 features, the batch 39"):
        sparse_fit(KEY, NET, objective(np.ones((50, 39)), np.ones(50)))
    with pytest.raises(ValueError, match="rounds and steps must be at least 1"):
        sparse_fit(KEY, NET, goal, rounds=0)
