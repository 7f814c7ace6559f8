"""Weights at fixed inputs: stationary points, agreement with SciPy, padding, dtypes, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from sparsejax.models.ultra_sparse.config import UltraSparseConfig, dense, sparse
from sparsejax.models.ultra_sparse.evolve.objective import evaluate, objective
from sparsejax.models.ultra_sparse.evolve.polish import flatten, polish, unflatten
from sparsejax.models.ultra_sparse.model import UltraSparseNet

KEY = jax.random.key(0)
LINEAR = UltraSparseConfig.fixed_k(6, 4, 1, 2, "linear")
TANH = UltraSparseConfig.fixed_k(6, 4, 1, 2)
TWO_OUTPUTS = UltraSparseConfig.fixed_k(6, 4, 2, 2, "linear")
CLASSES = UltraSparseConfig.fixed_k(6, 4, 3, 2, "linear")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def start(config, seed=0):
    init = jax.jit(UltraSparseNet(config).init)
    params = init(jax.random.key(seed), jnp.zeros(config.input_size))["params"]
    return jax.tree.map(lambda a: a if a.dtype == jnp.int32 else a + 0.1, dict(params))


def batch(config, rows=60, seed=1):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, config.input_size))
    wave = np.sin(features[:, : config.output_size]) * 0.7 + 0.1 * rng.standard_normal(
        (rows, config.output_size)
    )
    return features, wave


def classes(rows=90, seed=1):
    features = np.random.default_rng(seed).standard_normal((rows, 6))
    return features, (features[:, 0] > 0).astype(int) + (features[:, 1] > 0.5)


def ridged(config, indices, flat, goal, ridge):
    return evaluate(config, unflatten(config, indices, flat), goal) + ridge * jnp.sum(flat**2)


@pytest.mark.parametrize("config", [LINEAR, TANH, TWO_OUTPUTS], ids=["linear", "tanh", "two outputs"])
def test_levenberg_marquardt_ends_at_a_stationary_point(x64, config):
    goal, ridge = objective(*batch(config)), 1e-3
    result = polish(KEY, config, start(config), goal, steps=1000, ridge=ridge)

    def cost(flat):
        return ridged(config, result.params["layer_0"]["indices"], flat, goal, ridge)

    flat = flatten(result.params)
    value, slope, curvature = jax.jit(
        lambda flat: (cost(flat), jax.grad(cost)(flat), jax.hessian(cost)(flat))
    )(flat)
    assert np.abs(slope).max() < 1e-7
    assert np.linalg.eigvalsh(curvature)[0] > -1e-8
    assert float(result.history[-1]) == pytest.approx(float(value), rel=1e-9)


def test_ends_as_low_as_scipy(x64):
    goal, ridge, params = objective(*batch(LINEAR)), 1e-4, start(LINEAR)
    indices = params["layer_0"]["indices"]

    @jax.jit
    def residuals(flat):
        net = unflatten(LINEAR, indices, flat)
        outputs = UltraSparseNet(LINEAR).apply({"params": net}, goal.features, features_first=True)
        return jnp.concatenate([jnp.ravel(outputs - goal.targets) / 60**0.5, ridge**0.5 * flat])

    peer = least_squares(residuals, np.asarray(flatten(params)), method="lm", max_nfev=2000)
    result = polish(KEY, LINEAR, params, goal, steps=500, ridge=ridge)
    assert float(result.history[-1]) <= 2 * peer.cost * 1.02


def test_never_rises_and_reports_what_it_did(x64):
    goal, params = objective(*batch(LINEAR)), start(LINEAR)
    result = polish(KEY, LINEAR, params, goal, steps=50)
    assert np.all(np.diff(result.history) <= 0)
    assert result.history.shape == (50,)
    assert float(result.loss) == pytest.approx(float(evaluate(LINEAR, result.params, goal)), rel=1e-12)
    assert float(result.loss) < 0.5 * float(evaluate(LINEAR, params, goal))
    assert float(result.max_weight) == float(np.abs(flatten(result.params)).max())
    np.testing.assert_array_equal(result.params["layer_0"]["indices"], params["layer_0"]["indices"])


def test_cross_entropy_ends_at_a_stationary_point(x64):
    goal, ridge = objective(*classes(), loss="cross_entropy"), 1e-3
    result = polish(KEY, CLASSES, start(CLASSES), goal, steps=400, ridge=ridge)

    def cost(flat):
        return ridged(CLASSES, result.params["layer_0"]["indices"], flat, goal, ridge)

    value, slope = jax.jit(jax.value_and_grad(cost))(flatten(result.params))
    assert np.abs(slope).max() < 1e-5
    assert float(result.history[-1]) == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_rows_of_weight_zero_change_nothing(x64, loss):
    config = LINEAR if loss == "mse" else CLASSES
    features, targets = batch(LINEAR) if loss == "mse" else classes()
    garbage = np.full((7, 6), 30.0)
    padded = np.concatenate([features, garbage]), np.concatenate([targets, targets[:7]])
    weights = np.r_[np.ones(len(features)), np.zeros(7)]
    one = polish(KEY, config, start(config), objective(features, targets, loss=loss), steps=20, ridge=1e-4)
    two = polish(
        KEY, config, start(config), objective(*padded, loss=loss, row_weights=weights), steps=20, ridge=1e-4
    )
    np.testing.assert_allclose(flatten(two.params), flatten(one.params), rtol=1e-6, atol=1e-8)


def test_row_weights_count_like_repeated_rows(x64):
    features, targets = batch(LINEAR, rows=30)
    twice = np.concatenate([features, features[:10]]), np.concatenate([targets, targets[:10]])
    weights = np.r_[np.full(10, 2.0), np.ones(20)]
    one = polish(KEY, LINEAR, start(LINEAR), objective(*twice), steps=20, ridge=1e-4)
    two = polish(
        KEY, LINEAR, start(LINEAR), objective(features, targets, row_weights=weights), steps=20, ridge=1e-4
    )
    np.testing.assert_allclose(flatten(two.params), flatten(one.params), rtol=1e-6, atol=1e-8)


def test_follows_the_dtype_of_the_goal():
    batch_, params = batch(LINEAR), start(LINEAR)
    single = polish(KEY, LINEAR, params, objective(*batch_), steps=200, ridge=1e-3)
    assert single.loss.dtype == flatten(single.params).dtype == jnp.float32
    with jax.enable_x64(True):
        double = polish(KEY, LINEAR, params, objective(*batch_), steps=200, ridge=1e-3)
        assert double.loss.dtype == flatten(double.params).dtype == jnp.float64
    assert float(single.loss) == pytest.approx(float(double.loss), rel=1e-3)


def test_vmap_over_keys_and_nets_agrees_with_single_runs(x64):
    goal, seeds = objective(*batch(LINEAR)), (0, 1, 2)
    nets = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[start(LINEAR, seed) for seed in seeds])
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key, net: polish(key, LINEAR, net, goal, steps=15, jitter=0.1))(keys, nets)
    for number, seed in enumerate(seeds):
        alone = polish(keys[number], LINEAR, start(LINEAR, seed), goal, steps=15, jitter=0.1)
        assert float(together.loss[number]) == pytest.approx(float(alone.loss), rel=1e-6)


def test_jitter_parts_neurons_that_read_the_same_with_the_same_weights(x64):
    net = {
        "layer_0": {
            "indices": jnp.zeros((4, 2), jnp.int32).at[:, 1].set(1),
            "weights": jnp.ones((4, 2)),
            "bias": jnp.zeros(4),
        },
        "layer_1": {"kernel": jnp.ones((4, 1)), "bias": jnp.zeros(1)},
    }
    goal = objective(*batch(LINEAR))
    stuck = polish(KEY, LINEAR, net, goal, steps=3)
    parted = polish(KEY, LINEAR, net, goal, steps=3, jitter=0.1)
    assert float(jnp.ptp(stuck.params["layer_0"]["weights"][:, 0])) < 1e-6
    assert float(jnp.ptp(parted.params["layer_0"]["weights"][:, 0])) > 1e-2


def test_ridge_bounds_the_weights(x64):
    goal = objective(*batch(LINEAR))
    loose, tight = (polish(KEY, LINEAR, start(LINEAR), goal, ridge=ridge) for ridge in (1e-9, 1e-1))
    assert float(tight.max_weight) < 0.5 * float(loose.max_weight)
    assert float(tight.loss) > float(loose.loss)


@pytest.mark.parametrize(
    "config",
    [
        UltraSparseConfig.deep(6, (4, 4), 1, 2),
        UltraSparseConfig.dense(6, 4, 1),
        UltraSparseConfig(6, (sparse(4, 2, variable_fan_in=True), dense(1))),
        UltraSparseConfig(6, (sparse(4, 2, "sign"), dense(1))),
        UltraSparseConfig(6, (sparse(4, 2), dense(1, "relu"))),
    ],
    ids=["deep", "dense", "variable", "sign", "relu head"],
)
def test_refuses_other_stacks(config):
    with pytest.raises(ValueError, match="one sparse tanh layer"):
        polish(KEY, config, start(config), objective(*batch(LINEAR)))


def test_refuses_no_steps_and_foreign_batches():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        polish(KEY, LINEAR, start(LINEAR), objective(*batch(LINEAR)), steps=0)
    with pytest.raises(ValueError, match="the net has 6 features, the batch 5"):
        polish(KEY, LINEAR, start(LINEAR), objective(np.ones((4, 5)), np.ones(4)))
    with pytest.raises(ValueError, match="the net has 1 outputs, the batch 2"):
        polish(KEY, LINEAR, start(LINEAR), objective(*batch(TWO_OUTPUTS)))
