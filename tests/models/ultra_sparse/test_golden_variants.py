"""The other architectures of the original's scripts, and its int8 and sign nets."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    UltraSparseNet,
    dense,
    expand_input,
    masked,
    quantize,
    quantize_weights,
    sparse,
    with_sign_hidden,
)
from tests.models.ultra_sparse import published
from tests.models.ultra_sparse.published import allowed, checkpoint, worst

covers = pytest.mark.golden("variants_a")


def table(indices, weights, bias, **more):
    return {"indices": indices.astype(np.int32), "weights": weights, "bias": bias, **more}


def plain(weights, bias, mask=None):
    own = {"kernel": weights.T, "bias": bias}
    return own if mask is None else own | {"mask": mask.T.astype(bool)}


def fixed_k(v):
    return [sparse(16, 4)], [table(v["indices"], v["w1"], v["b1"])], plain(v["w2"], v["b2"])


def variable_k(v):
    first = table(v["indices"], v["w1"], v["b1"], live=v["k"])
    return [sparse(16, 9, variable_fan_in=True)], [first], plain(v["w2"], v["b2"])


def sensor_k(v):
    first, second = table(v["indices1"], v["w1"], v["b1"]), table(v["indices2"], v["w2"], v["b2"])
    return [sparse(12, 4), sparse(16, 4)], [first, second], plain(v["w3"], v["b3"])


def sensor_dense(v):
    first = table(v["indices"], v["w1"], v["b1"])
    return [sparse(12, 4), dense(16)], [first, plain(v["w2"], v["b2"])], plain(v["w3"], v["b3"])


def sensor_flip(v):
    first = table(v["indices"], v["w1"], v["b1"])
    return [sparse(12, 4), masked(16)], [first, plain(v["w2"], v["b2"], v["mask"])], plain(v["w3"], v["b3"])


def flip_sparse(v):
    return [masked(16)], [plain(v["w1"], v["b1"], v["mask"])], plain(v["w2"], v["b2"])


def retinal(v):
    first, second = plain(v["w1"], v["b1"], v["mask1"]), plain(v["w2"], v["b2"], v["mask2"])
    return [masked(12), masked(16)], [first, second], plain(v["w3"], v["b3"])


def deep(v):
    tables = [table(*(v[f"layer{n}_{part}"] for part in ("indices", "weights", "bias"))) for n in range(3)]
    return [sparse(size, 4) for size in (16, 14, 13)], tables, plain(v["output_weights"], v["output_bias"])


def covariate_shift(v):
    first = table(v["hidden_indices"], v["hidden_weights"], v["hidden_bias"])
    return [sparse(16, 4)], [first], plain(v["output_weights"], v["output_bias"])


BUILD = {
    "fixedk_dupindices": fixed_k,
    "variablek": variable_k,
    "sensork": sensor_k,
    "sensordense": sensor_dense,
    "sensorflip": sensor_flip,
    "flipsparse": flip_sparse,
    "retinal": retinal,
    "deep": deep,
}


def build(name, maker, activation="tanh"):
    stored = published.arrays("variants_a")
    own = {
        key.removeprefix(f"{name}__"): value for key, value in stored.items() if key.startswith(f"{name}__")
    }
    layers, hidden, output = maker(own)
    config = UltraSparseConfig(64, (*layers, dense(10, activation)))
    return UltraSparseNet(config), {f"layer_{n}": layer for n, layer in enumerate([*hidden, output])}


@covers
@pytest.mark.parametrize("name", BUILD)
def test_architecture(name):
    net, params = build(name, BUILD[name])
    stored = published.arrays("variants_a")
    (bound,) = allowed("variants_a", "output")
    outputs = jax.jit(net.apply)({"params": params}, stored["x"])
    assert worst(outputs, stored[f"{name}__output"]) <= bound


@covers
def test_every_architecture_of_the_file_is_built():
    names = {key.split("__")[0] for key in published.arrays("variants_a") if "__" in key}
    assert names == {*BUILD, "covshift"}


@covers
def test_one_neuron_may_read_the_same_input_several_times():
    indices = published.arrays("variants_a")["fixedk_dupindices__indices"]
    assert any(len(set(row)) == 1 for row in indices.tolist()), "the case that test_architecture passes on"


@covers
@pytest.mark.parametrize("stale", [np.nan, np.inf, 1e30])
def test_stale_slots_of_a_variable_fan_in_may_hold_anything(stale):
    net, params = build("variablek", variable_k)
    stored, first = published.arrays("variants_a"), params["layer_0"]
    dead = np.arange(9) >= first["live"][:, None]
    assert 0 < dead.sum() < dead.size
    first["weights"], first["indices"] = first["weights"].copy(), first["indices"].copy()
    first["weights"][dead], first["indices"][dead] = stale, 63
    outputs, gradient = jax.jit(
        jax.value_and_grad(lambda b: net.apply({"params": b}, stored["x"]).sum(), allow_int=True)
    )(params)
    expected = stored["variablek__output"]
    found = jax.jit(net.apply)({"params": params}, stored["x"])
    assert worst(found, expected) <= allowed("variants_a", "output")[0]
    assert float(outputs) == pytest.approx(float(expected.sum()), abs=1e-4)
    assert np.all(np.asarray(gradient["layer_0"]["weights"])[dead] == 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient) if leaf.dtype == np.float32)


@covers
def test_covariate_shift_net_has_linear_logits():
    net, params = build("covshift", covariate_shift, "linear")
    stored = published.arrays("variants_a")
    (bound,) = allowed("variants_a", "output")
    logits = jax.jit(net.apply)({"params": params}, stored["x"])
    assert np.abs(stored["covshift_logits"]).max() > 1, "beyond what a tanh could give"
    assert worst(logits, stored["covshift_logits"]) <= bound
    assert worst(jax.nn.softmax(logits), stored["covshift_proba"]) <= bound


INT8 = {"standard_sa": "standard_sa_mse0.009155.pt", "backprop": "backprop_mse0.000003.pt"}
int8_nets = pytest.mark.parametrize("net", INT8)
covers_int8 = pytest.mark.golden("binary_int8_a")


@covers_int8
@int8_nets
def test_truncated_codes_are_the_originals(net):
    ck, stored = checkpoint(INT8[net]), published.arrays("binary_int8_a")
    for layer, name in (("layer_0", "w1"), ("layer_1", "w2")):
        codes, scale = quantize_weights(ck.params[layer]["kernel"], "truncate")
        np.testing.assert_array_equal(np.asarray(codes).T, stored[f"{net}_{name}_int8"])
        assert codes.dtype == np.int8
        assert float(scale) == float(stored[f"{net}_{name}_scale"])


@covers_int8
@int8_nets
def test_int8_and_sign_nets_of_the_original(net):
    ck, stored = checkpoint(INT8[net]), published.arrays("binary_int8_a")
    bound, near_flip = allowed("binary_int8_a")
    features = expand_input(stored["x"])
    config, params = quantize(ck.config, ck.params, rounding="truncate", sign_hidden=True)
    for name, sign_config, sign_params in (
        ("int8", config, params),
        ("binary", with_sign_hidden(ck.config), ck.params),
    ):
        linear = UltraSparseConfig(256, (dense(8, "linear"),))
        kernel = sign_params["layer_0"]["kernel"]
        kernel = kernel / 127 * sign_params["layer_0"]["scale"] if name == "int8" else kernel
        own = {"kernel": kernel, "bias": ck.params["layer_0"]["bias"]}
        before = np.asarray(UltraSparseNet(linear).apply({"params": {"layer_0": own}}, features))
        clear = (np.abs(before) >= near_flip).all(axis=-1)
        assert clear.mean() > 0.95
        outputs = np.asarray(UltraSparseNet(sign_config).apply({"params": sign_params}, features))[:, 0]
        assert np.max(np.abs(outputs - stored[f"{net}_{name}_out"])[clear]) <= bound


@covers_int8
@int8_nets
def test_nearest_rounding_keeps_every_weight_at_least_as_close(net):
    ck = checkpoint(INT8[net])
    for layer in ("layer_0", "layer_1"):
        weights = np.asarray(ck.params[layer]["kernel"], np.float64)
        errors = {}
        for rounding in ("nearest", "truncate"):
            codes, scale = quantize_weights(ck.params[layer]["kernel"], rounding)
            errors[rounding] = np.abs(np.asarray(codes, np.float64) / 127 * float(scale) - weights)
        assert np.all(errors["nearest"] <= errors["truncate"] + 1e-9)
        assert errors["nearest"].max() <= np.abs(weights).max() / 254 * (1 + 1e-5)
        assert errors["nearest"].mean() < 0.75 * errors["truncate"].mean(), (
            "half the error where weights spread out"
        )


@covers_int8
def test_nearest_rounding_halves_the_output_error_of_the_backprop_net():
    """The standard_sa net, with weights up to 6, gains nothing: both roundings move its outputs by 0.02."""
    ck, features = checkpoint(INT8["backprop"]), expand_input(published.arrays("binary_int8_a")["x"])
    exact, error = np.asarray(ck.apply(features)), {}
    for rounding in ("nearest", "truncate"):
        config, params = quantize(ck.config, ck.params, rounding=rounding)
        outputs = UltraSparseNet(config).apply({"params": params}, features)
        error[rounding] = float(np.sqrt(np.mean((outputs - exact) ** 2)))
    assert error["nearest"] < 0.5 * error["truncate"]
