"""Int8 codes: their error bound, their ties, and what they refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    UltraSparseNet,
    quantize,
    quantize_weights,
    with_sign_hidden,
)
from sparsejax.models.ultra_sparse.quantize import dequantize
from tests.models.ultra_sparse import nets, oracle

EPS = float(np.finfo(np.float32).eps)
weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=2, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


def restored(values, rounding="nearest"):
    """Weights after a round trip, and their codes, all in NumPy."""
    codes, scale = quantize_weights(values, rounding)
    codes, scale = np.asarray(codes), np.asarray(scale)
    assert codes.dtype == np.int8 and codes.shape == values.shape
    assert scale.shape == () and scale == np.abs(values).max()
    return dequantize(codes, scale).astype(np.float64), codes, float(scale)


@given(weights)
def test_nearest_rounding_errs_by_at_most_half_a_step(values):
    back, codes, scale = restored(values)
    assert np.abs(back - values).max() <= scale / 254 + 4 * EPS * scale
    assert np.abs(codes).max() == (127 if values.any() else 0), "the largest weight is exact"


@given(weights)
def test_truncation_errs_by_less_than_a_step_and_towards_zero(values):
    back, codes, scale = restored(values, "truncate")
    assert np.abs(back - values).max() <= scale / 127 + 4 * EPS * scale
    assert np.all(np.abs(back) <= np.abs(values) * (1 + 4 * EPS))
    assert np.abs(codes).max() == (127 if values.any() else 0), "max|w| / max|w| is 1, not 0.99999994"


@given(weights)
def test_nearest_is_never_further_from_a_weight_than_truncation(values):
    errors = [np.abs(restored(values, rounding)[0] - values) for rounding in ("nearest", "truncate")]
    slack = 4 * EPS * float(np.abs(values).max())
    assert np.all(errors[0] <= errors[1] + slack)


def test_ties_go_to_the_even_code():
    levels = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    assert quantize_weights(levels)[0].tolist() == [127, 0, 2, 2, 0, -2, -2]
    assert quantize_weights(levels, "truncate")[0].tolist() == [127, 0, 1, 2, 0, -1, -2]


def test_zero_weights_stay_zero():
    codes, scale = quantize_weights(np.zeros((3, 2), np.float32))
    assert not codes.any() and float(scale) == 0
    assert not np.any(dequantize(codes, scale))


def test_codes_and_signs_by_hand():
    codes, scale = quantize_weights(jnp.array([2.0, -1.0, 0.01, -2.0]))
    assert (codes.tolist(), float(scale)) == ([127, -64, 1, -127], 2.0)
    np.testing.assert_allclose(dequantize(codes, scale), [2, -64 / 127 * 2, 2 / 127, -2], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "sign"), [("variable_k", False), ("sensor_flip", True), ("deep", True), ("dense", False)]
)
def test_a_quantised_net_computes_with_its_codes(name, sign):
    config = nets.ARCHITECTURES[name]
    params = nets.make(config, stale=0.0)
    small, codes = quantize(config, params, sign_hidden=sign)
    x = np.random.default_rng(2).normal(size=(4, 12)).astype(np.float32)
    found = jax.jit(UltraSparseNet(small).apply)({"params": codes}, x)
    expected = oracle.activations(small, codes, x)
    np.testing.assert_allclose(found, expected[-1], rtol=1e-5, atol=5e-6)
    assert all(layer.weights == "int8" for layer in small.layers)
    assert small.layers[-1].activation == config.layers[-1].activation
    if sign:
        assert all(set(np.unique(hidden)) <= {-1.0, 0.0, 1.0} for hidden in expected[:-1])
    shapes = jax.eval_shape(UltraSparseNet(small).init, jax.random.key(0), x)["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(jnp.shape, codes)


def test_sign_activations_alone_keep_the_weights():
    config = UltraSparseConfig.deep(12, (5, 4), 2, 3)
    signed = with_sign_hidden(config)
    assert [layer.activation for layer in signed.layers] == ["sign", "sign", "tanh"]
    assert [layer.weights for layer in signed.layers] == ["float"] * 3


def test_a_net_is_quantised_once():
    config, params = nets.ARCHITECTURES["dense"], nets.make(nets.ARCHITECTURES["dense"])
    with pytest.raises(ValueError, match="layer 0 holds int8 weights already"):
        quantize(*quantize(config, params))


def test_the_float_net_is_left_as_it_was():
    config, params = nets.ARCHITECTURES["fixed_k"], nets.make(nets.ARCHITECTURES["fixed_k"])
    before = params["layer_0"]["weights"].copy()
    quantize(config, params)
    assert "scale" not in params["layer_0"]
    np.testing.assert_array_equal(params["layer_0"]["weights"], before)


def test_unknown_roundings_are_refused():
    with pytest.raises(ValueError, match="'floor' is not one of"):
        quantize_weights(np.ones(2, np.float32), "floor")
