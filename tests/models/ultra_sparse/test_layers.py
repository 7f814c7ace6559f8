"""What must not change a net's outputs: the order of neurons, columns that are not read, dead slots."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.models.ultra_sparse import UltraSparseNet
from sparsejax.models.ultra_sparse.layers import (
    activate,
    dense_layer,
    live_weights,
    masked_layer,
    sparse_layer,
)
from tests.models.ultra_sparse import nets, oracle

SAME = {"rtol": 0, "atol": 3e-6}  # sums in another order
architectures = pytest.mark.parametrize("name", nets.ARCHITECTURES)
seeds = st.integers(0, 2**32 - 1)


@lru_cache
def run(name):
    """The jitted net of an architecture, compiled once for all tests of this file, and its config."""
    config = nets.ARCHITECTURES[name]
    return jax.jit(UltraSparseNet(config).apply), config


def outputs(apply, params, x):
    return np.asarray(apply({"params": params}, x))


def permuted(config, params, layer, order):
    """The same function with the neurons of one hidden layer in another order."""
    result = {name: dict(own) for name, own in params.items()}
    own = result[f"layer_{layer}"]
    for name in own:
        own[name] = own[name][:, order] if name in ("kernel", "mask") else own[name][order]
    after = result[f"layer_{layer + 1}"]
    if "indices" in after:
        after["indices"] = np.argsort(order)[after["indices"]].astype(np.int32)
    else:
        for name in after.keys() & {"kernel", "mask"}:
            after[name] = after[name][order]
    return result


@architectures
@settings(max_examples=10)
@given(seed=seeds, data=st.data())
def test_the_order_of_hidden_neurons_does_not_matter(name, seed, data):
    apply, config = run(name)
    params, x = nets.make(config, seed), np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)
    layer = data.draw(st.integers(0, len(config.layers) - 2))
    order = np.array(data.draw(st.permutations(range(config.layers[layer].features))))
    np.testing.assert_allclose(
        outputs(apply, permuted(config, params, layer, order), x), outputs(apply, params, x), **SAME
    )


@architectures
@settings(max_examples=10)
@given(seed=seeds, data=st.data())
def test_the_order_of_inputs_does_not_matter(name, seed, data):
    apply, config = run(name)
    params, x = nets.make(config, seed), np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)
    order = np.array(data.draw(st.permutations(range(12))))
    moved = {key: dict(own) for key, own in params.items()}
    first = moved["layer_0"]
    if "indices" in first:
        first["indices"] = np.argsort(order)[first["indices"]].astype(np.int32)
    for key in first.keys() & {"kernel", "mask"}:
        first[key] = first[key][order]
    np.testing.assert_allclose(outputs(apply, moved, x[:, order]), outputs(apply, params, x), **SAME)


@pytest.mark.parametrize("name", ["fixed_k", "variable_k", "deep", "sensor_dense", "sensor_flip"])
@settings(max_examples=10)
@given(seed=seeds, value=st.sampled_from([np.nan, np.inf, -1e30]))
def test_columns_that_no_neuron_reads_may_hold_anything(name, seed, value):
    apply, config = run(name)
    params, x = nets.make(config, seed), np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)
    params["layer_0"]["indices"] = params["layer_0"]["indices"] % 9
    spoilt = x.copy()
    spoilt[:, 9:] = value
    np.testing.assert_array_equal(outputs(apply, params, spoilt), outputs(apply, params, x))


@settings(max_examples=10)
@given(seed=seeds, value=st.sampled_from([np.nan, np.inf, 5.0]), index=st.integers(0, 11))
def test_slots_beyond_the_live_count_may_hold_anything(seed, value, index):
    apply, config = run("variable_k")
    params, x = (
        nets.make(config, seed, stale=0.0),
        np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32),
    )
    stale = nets.make(config, seed, stale=value)
    dead = np.arange(6) >= stale["layer_0"]["live"][:, None]
    stale["layer_0"]["indices"][dead] = index
    np.testing.assert_allclose(outputs(apply, stale, x), outputs(apply, params, x), **SAME)


def test_a_neuron_of_no_live_slot_is_its_bias():
    config = nets.ARCHITECTURES["variable_k"]
    params = nets.make(config)
    params["layer_0"]["live"][2] = 0
    hidden, _ = UltraSparseNet(config).apply(
        {"params": params}, np.ones((1, 12), np.float32), method="activations"
    )
    assert float(hidden[0, 2]) == pytest.approx(np.tanh(params["layer_0"]["bias"][2]), abs=1e-6)


@architectures
@settings(max_examples=10)
@given(seed=seeds)
def test_random_nets_equal_the_loops_of_the_specification(name, seed):
    apply, config = run(name)
    params, x = nets.make(config, seed), np.random.default_rng(seed).normal(size=(4, 12)).astype(np.float32)
    np.testing.assert_allclose(
        outputs(apply, params, x), oracle.forward(config, params, x), rtol=2e-5, atol=5e-6
    )


def test_duplicate_indices_count_twice():
    x, weights = np.array([[3.0, 5.0]], np.float32), np.array([[1.0, 10.0]], np.float32)
    found = sparse_layer(x, np.array([[1, 1]]), weights, np.array([0.5], np.float32))
    assert found.tolist() == [[5 * 1 + 5 * 10 + 0.5]]


@pytest.mark.parametrize("shape", [(12,), (4, 12), (2, 3, 12), (0, 12)])
@pytest.mark.parametrize("kind", ["sparse", "dense", "masked"])
def test_features_first_is_the_same_layer_with_the_axis_moved(shape, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    if kind == "sparse":
        layer, arrays = (
            sparse_layer,
            (rng.integers(0, 12, (5, 3)), rng.normal(size=(5, 3)).astype(np.float32)),
        )
    else:
        arrays = (rng.normal(size=(12, 5)).astype(np.float32),)
        arrays += (rng.random((12, 5)) < 0.5,) if kind == "masked" else ()
        layer = masked_layer if kind == "masked" else dense_layer
    rows = layer(x, *arrays, bias)
    columns = layer(np.moveaxis(x, -1, 0), *arrays, bias, features_first=True)
    assert rows.shape == (*shape[:-1], 5) and columns.shape == (5, *shape[:-1])
    np.testing.assert_allclose(np.moveaxis(columns, 0, -1), rows, **SAME)


def test_live_weights_keep_live_slots_exactly():
    weights = np.array([[1.0, 2.0, np.nan], [3.0, np.inf, 5.0]], np.float32)
    assert live_weights(weights, np.array([2, 1])).tolist() == [[1, 2, 0], [3, 0, 0]]


def test_masked_entries_may_hold_anything():
    kernel, mask = np.array([[1.0], [np.nan]], np.float32), np.array([[True], [False]])
    assert masked_layer(np.array([2.0, 3.0], np.float32), kernel, mask, np.zeros(1, np.float32)).tolist() == [
        2.0
    ]


def test_activations_by_hand():
    x = jnp.array([-2.0, 0.0, 0.5])
    assert activate(x, "linear").tolist() == [-2, 0, 0.5]
    assert activate(x, "relu").tolist() == [0, 0, 0.5]
    assert activate(x, "sign").tolist() == [-1, 0, 1], "sign(0) is 0"
    np.testing.assert_allclose(activate(x, "tanh"), np.tanh(np.asarray(x)), rtol=1e-6)
