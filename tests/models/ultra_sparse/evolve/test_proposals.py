"""Guided index proposals: what they find, what they never touch, and the derivatives they rest on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import loss_of, objective
from sparsejax.models.ultra_sparse.evolve.proposals import (
    candidates,
    first_net,
    restart_neuron,
    sensitivity,
    swap_slot,
    worth,
)
from sparsejax.models.ultra_sparse.model import UltraSparseNet, activations

KEY = jax.random.key(0)
COLUMNS, CONSTANT, ZERO, FORBIDDEN = 20, 4, 5, 6
NET = UltraSparseConfig.fixed_k(COLUMNS, 3, 1, 2, "linear")


def uniform(rows=400, columns=COLUMNS, seed=0):
    features = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    features[:, CONSTANT], features[:, ZERO] = 0.1, 0
    return features


def net(config=NET, table=None, seed=1):
    init = jax.jit(UltraSparseNet(config).init)
    params = dict(init(jax.random.key(seed), jnp.zeros(config.input_size))["params"])
    if table is not None:
        params["layer_0"] = {**params["layer_0"], "indices": jnp.asarray(table, jnp.int32)}
    return params


def propose(move, goal, params, *, count=100, config=NET, greed=2.0, price=0.0, allowed=None):
    """``count`` proposals from one net, as a batch of nets."""

    @jax.jit
    def run(keys, goal):
        columns, now = candidates(goal, allowed), sensitivity(config, params, goal)
        return jax.vmap(lambda key: move(key, params, goal, columns, now, greed=greed, price=price))(keys)

    return run(jax.random.split(KEY, count), goal)


def newly_read(params, proposals):
    old = set(np.asarray(params["layer_0"]["indices"]).ravel().tolist())
    return [set(row.ravel().tolist()) - old for row in np.asarray(proposals["layer_0"]["indices"])]


@pytest.mark.parametrize("head", ["tanh", "linear"])
def test_sensitivity_is_half_the_gradient_of_the_squared_error(head):
    config = UltraSparseConfig.fixed_k(COLUMNS, 3, 2, 2, head)
    targets = np.random.default_rng(3).random((30, 2))
    goal = objective(uniform(30), targets, row_weights=np.arange(30))
    params = net(config)
    now = sensitivity(config, params, goal)
    hidden = activations(config, params, goal.features, features_first=True)[0]
    before = params["layer_1"]["kernel"].T @ hidden + params["layer_1"]["bias"][:, None]
    gradient = jax.grad(lambda z: loss_of(jnp.tanh(z) if head == "tanh" else z, goal))(before)
    np.testing.assert_allclose(2 * now.error, gradient, atol=1e-7)
    if head == "linear":
        np.testing.assert_allclose(2 * now.curvature, jnp.broadcast_to(goal.row_weights, (2, 30)), atol=1e-7)


def test_sensitivity_holds_gradient_and_diagonal_hessian_of_cross_entropy():
    config = UltraSparseConfig.fixed_k(COLUMNS, 3, 3, 2, "linear")
    goal = objective(uniform(12), np.arange(12) % 3, loss="cross_entropy")
    params = net(config)
    now = sensitivity(config, params, goal)
    outputs = activations(config, params, goal.features, features_first=True)[1]
    np.testing.assert_allclose(now.error, jax.grad(lambda z: loss_of(z, goal))(outputs), atol=1e-7)
    hessian = jax.hessian(lambda z: loss_of(z.reshape(3, 12), goal))(outputs.ravel())
    np.testing.assert_allclose(now.curvature.ravel(), jnp.diagonal(hessian), atol=1e-7)


def test_swap_finds_the_column_that_drives_the_residual():
    features = uniform()
    goal = objective(features, 3 * features[:, 11])
    params = net(table=[[0, 1], [2, 3], [7, 8]])
    found = newly_read(params, propose(swap_slot, goal, params, greed=5.0))
    assert sum(new == {11} for new in found) >= 95


def test_greed_zero_samples_all_columns():
    features = uniform()
    goal = objective(features, 3 * features[:, 11])
    params = net(table=[[0, 1], [2, 3], [7, 8]])
    found = newly_read(params, propose(swap_slot, goal, params, greed=0.0, count=300))
    assert len(set().union(*found)) >= 10


def test_restart_finds_an_even_effect_that_no_column_correlates_with():
    features = uniform(2000)
    even = (2 * features[:, 11] - 1) ** 2
    others = np.delete(np.arange(COLUMNS), [CONSTANT, ZERO, 11])
    largest = max(abs(np.corrcoef(features[:, j], even)[0, 1]) for j in others)
    assert abs(np.corrcoef(features[:, 11], even)[0, 1]) < largest
    goal, params = objective(features, even), net(table=[[0, 1], [2, 3], [7, 8]])
    weak = {**params, "layer_1": {**params["layer_1"], "kernel": params["layer_1"]["kernel"] * 1e-3}}
    swapped = newly_read(weak, propose(swap_slot, goal, weak, greed=5.0))
    restarted = propose(restart_neuron, goal, weak, greed=5.0)
    assert sum(11 in new for new in swapped) <= 50
    assert sum(11 in new for new in newly_read(weak, restarted)) >= 95


def test_restart_lowers_the_loss_before_any_polish():
    features = uniform(2000)
    goal = objective(features, np.cos(2 * np.pi * features[:, 11]))
    params = net(table=[[0, 1], [2, 3], [7, 8]])
    weak = {**params, "layer_1": {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}}
    before = float(sensitivity(NET, weak, goal).loss)
    after = jax.vmap(lambda p: sensitivity(NET, p, goal).loss)(propose(restart_neuron, goal, weak, greed=5.0))
    # A tanh explains at most a quarter or so of a full cosine wave.
    assert np.median(after) < 0.85 * before


@pytest.mark.parametrize("move", [swap_slot, restart_neuron])
def test_moves_keep_inputs_distinct_and_never_take_a_constant_or_forbidden_column(move):
    features = uniform()
    goal, params = objective(features, features @ np.ones(COLUMNS)), net(table=[[0, 1], [2, 3], [7, 8]])
    allowed = np.arange(COLUMNS) != FORBIDDEN
    proposals = propose(move, goal, params, greed=0.0, count=500, allowed=allowed)
    tables = np.asarray(proposals["layer_0"]["indices"])
    assert not np.isin(tables, [CONSTANT, ZERO, FORBIDDEN]).any()
    assert (tables[:, :, 0] != tables[:, :, 1]).all()
    assert len(np.unique(tables)) == COLUMNS - 3
    changed = (tables != np.asarray(params["layer_0"]["indices"])).any(axis=2).sum(axis=1)
    assert changed.max() == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(proposals))


@pytest.mark.parametrize("move", [swap_slot, restart_neuron])
def test_nothing_moves_where_no_column_is_usable(move):
    goal = objective(np.ones((30, COLUMNS)), np.arange(30))
    params = net()
    for leaf, same in zip(
        jax.tree.leaves(propose(move, goal, params, count=1)), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(leaf[0], same)


def test_one_input_per_neuron_restarts():
    config = UltraSparseConfig.fixed_k(COLUMNS, 3, 1, 1, "linear")
    features = uniform()
    params = net(config, [[0], [1], [2]])
    goal = objective(features, 3 * features[:, 11])
    proposals = propose(restart_neuron, goal, params, config=config, greed=5.0)
    assert sum(new == {11} for new in newly_read(params, proposals)) >= 95


def test_worth_counts_nats_less_the_price_of_new_columns():
    goal = objective(uniform(100), np.zeros(100))
    usable, read = np.array([True, True, True, False]), np.array([True, False, False, True])
    gain = jnp.array([0.19, 0.19, 0.001, 0.19])
    nats = -50 * np.log1p(-gain)
    found = worth(gain, jnp.asarray(1.0), goal, usable=usable, read=read, price=4.0)
    np.testing.assert_allclose(found, [nats[0], nats[1] - 4, 0.05 * nats[2], 0], rtol=1e-5)
    labels = objective(uniform(100), np.arange(100) % 2, loss="cross_entropy")
    found = worth(gain, jnp.asarray(1.0), labels, usable=usable, read=read, price=4.0)
    np.testing.assert_allclose(found, [9.5, 5.5, 0.05 * 0.05, 0], rtol=1e-5)


def test_rows_of_weight_zero_do_not_count():
    features = uniform(50)
    padded = np.concatenate([features, np.full((5, COLUMNS), 1e3, np.float32)])
    weights = np.r_[np.ones(50), np.zeros(5)]
    one = candidates(objective(features, features[:, 0]))
    two = candidates(objective(padded, padded[:, 0], row_weights=weights))
    np.testing.assert_array_equal(two.usable, one.usable)
    np.testing.assert_allclose(two.scale, one.scale, rtol=1e-5)
    np.testing.assert_allclose(two.thresholds, one.thresholds, rtol=1e-5)
    np.testing.assert_allclose(two.responses[:, :, :50], one.responses, atol=2e-5)


def test_candidates_are_standardised():
    columns = candidates(objective(uniform(), np.zeros(400)))
    varying = np.delete(np.arange(COLUMNS), [CONSTANT, ZERO])
    assert np.flatnonzero(~columns.usable).tolist() == [CONSTANT, ZERO]
    for values in (columns.values[varying], columns.responses[:, varying]):
        np.testing.assert_allclose(np.mean(values, axis=-1), 0, atol=1e-5)
        np.testing.assert_allclose(np.std(values, axis=-1), 1, atol=1e-4)
    assert not np.any(columns.values[CONSTANT : ZERO + 1])
    assert not np.any(columns.responses[:, CONSTANT : ZERO + 1])


def test_first_nets_follow_the_correlation_and_avoid_constants():
    features = uniform()
    goal = objective(features, features[:, 11] + 0.1 * features[:, 12])
    columns = candidates(goal)
    greedy, even = (
        np.concatenate(
            [
                first_net(key, NET, goal, columns, greed=greed)["layer_0"]["indices"]
                for key in jax.random.split(KEY, 40)
            ]
        )
        for greed in (3.0, 0.0)
    )
    assert np.mean((greedy == 11).any(axis=1)) > 0.95
    assert np.mean((even == 11).any(axis=1)) < 0.3
    for tables in (greedy, even):
        assert (tables[:, 0] != tables[:, 1]).all()
        assert not np.isin(tables, [CONSTANT, ZERO]).any()


def test_first_net_repeats_the_only_usable_column():
    features = np.ones((30, COLUMNS), np.float32)
    features[:, 9] = np.arange(30)
    goal = objective(features, features[:, 9])
    table = first_net(KEY, NET, goal, candidates(goal), greed=1.0)["layer_0"]["indices"]
    np.testing.assert_array_equal(table, np.full((3, 2), 9))
