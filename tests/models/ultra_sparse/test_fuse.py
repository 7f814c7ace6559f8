"""`fuse(ck)(x)` is `ck.apply(expand_input(x))` with the shape of x, for every kind of net."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ultra_sparse import (
    UltraSparseConfig,
    UltraSparseNet,
    dense,
    expand_input,
    fuse,
    masked,
    quantize,
    sparse,
)
from sparsejax.models.ultra_sparse.fuse import _on_used_columns as on_used_columns
from tests.compilations import compilations
from tests.models.ultra_sparse import nets, oracle

X = np.array([-6.1, -0.7, 0.0, 2.3, 4.4, 5.9], np.float32)
SHAPES = [(), (6,), (6, 1), (2, 3)]
IN_EVERY_SHAPE = ("sparse", "many_outputs", "dense")  # one output, several, and a net without a table

NETS = {
    "sparse": UltraSparseConfig(),
    "many_outputs": UltraSparseConfig.fixed_k(256, 8, 3, 4),
    "linear_output": UltraSparseConfig.fixed_k(256, 6, 1, 3, output_activation="linear"),
    "variable_k": UltraSparseConfig(256, (sparse(6, 5, variable_fan_in=True), dense(2))),
    "deep": UltraSparseConfig.deep(256, (8, 7), 1, 3),
    "sensor_dense": UltraSparseConfig(256, (sparse(6, 3), dense(5, "relu"), dense(1))),
    "dense": UltraSparseConfig.dense(40, 6, 2),
    "dense_over_all_columns": UltraSparseConfig.dense(256, 6, 1),
    "masked": UltraSparseConfig(40, (masked(6), dense(1))),
    "flip": UltraSparseConfig(40, (sparse(6, 3), masked(5), dense(1))),
    "tiny": UltraSparseConfig.fixed_k(9, 8, 1, 2),
}
INT8 = ("sparse", "variable_k", "dense", "flip")


def make(name, *, int8=False, sign=False):
    """A net whose weights keep the sums small, so that float32 differences stay differences of rounding."""
    config = NETS[name]
    params = nets.make(config, seed=3, stale=0.0 if int8 else np.nan)
    for own in params.values():
        for key in own.keys() & {"weights", "kernel"}:
            own[key] = own[key] * np.float32(0.3)
    if int8:
        config, params = quantize(config, params, sign_hidden=sign)
    return nets.trained(config, params)


@lru_cache
def expanded(recipe, size):
    return np.asarray(expand_input(X, recipe, true_columns=min(16, size), noise_columns=max(0, size - 16)))


def reference(net, recipe):
    """Expanded and applied in two steps, the outputs laid out as `fuse` promises."""
    features = expanded(recipe, net.config.input_size)
    outputs = np.asarray(jax.jit(net.model.apply)({"params": net.params}, features))
    return outputs[..., 0] if net.config.output_size == 1 else outputs


def check(net, recipe="trained", atol=2e-5, shapes=((2, 3),)):
    fused, expected = fuse(net, recipe), reference(net, recipe)
    tail = () if net.config.output_size == 1 else (net.config.output_size,)
    for shape in shapes:
        x = X[2] if shape == () else X.reshape(shape)
        found = fused(x)
        assert found.shape == (*shape, *tail)
        wanted = expected[2] if shape == () else expected.reshape(*shape, *tail)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NETS)
def test_fused_equals_expand_and_apply(name):
    check(make(name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", IN_EVERY_SHAPE)
def test_fused_keeps_the_shape_of_x(name, shape):
    check(make(name), shapes=(shape,))


@pytest.mark.parametrize("name", INT8)
def test_fused_int8_nets(name):
    check(make(name, int8=True))


def test_fused_sign_nets():
    net = make("sparse", int8=True, sign=True)
    assert net.config.layers[0].activation == "sign"
    check(net)


@pytest.mark.parametrize("recipe", ["readme", "sine_problem", "library"])
def test_fused_nets_of_the_other_recipes(recipe):
    check(make("sparse"), recipe, atol=2e-4)  # arguments of up to 600 rad: see test_features


@pytest.mark.parametrize("name", ["sparse", "many_outputs", "deep", "dense"])
def test_fused_equals_the_loops_of_the_specification_in_float64(name):
    net = make(name)
    with jax.enable_x64(True):
        found = fuse(net)(X.astype(np.float64))
    expected = oracle.forward(net.config, net.params, oracle.expand(X))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-12)


def test_a_column_that_no_live_connection_reads_cannot_spoil_the_result():
    """At |x| = 1000 the high powers are infinite in float32; a net that does not read them stays finite."""
    net = make("sparse")
    net.params["layer_0"]["indices"][:] = [4, 10]
    net.params["layer_0"]["weights"][0, 1], net.params["layer_0"]["indices"][0, 1] = 0.0, 155
    x = np.float32(1000.0)
    assert not np.isfinite(expand_input(x, columns=[155])[0])
    features = np.zeros(256)
    features[[4, 10]] = np.sin(1000.0), np.cos(1000.0)
    assert float(fuse(net)(x)) == pytest.approx(
        float(oracle.forward(net.config, net.params, features)[0]), abs=2e-4
    )


def test_a_table_over_the_columns_that_live_connections_read():
    net = make("variable_k")
    own = net.params["layer_0"]
    live = np.arange(own["indices"].shape[1]) < own["live"][:, None]
    used, params = on_used_columns(net.config, net.params)
    np.testing.assert_array_equal(np.take(used, params["layer_0"]["indices"])[live], own["indices"][live])
    assert set(used) == {0, *own["indices"][live].tolist()}  # idle places read column 0
    own["live"][:], own["indices"][:, 0] = 1, 7
    assert on_used_columns(net.config, net.params) == (None, net.params)  # fewer than a table is wide


def test_a_net_of_zero_weights_is_its_biases():
    net = make("sparse")
    net.params["layer_0"]["weights"][:] = 0
    expected = oracle.forward(net.config, net.params, np.zeros(256))[0]
    np.testing.assert_allclose(fuse(net)(X), np.full(6, expected), atol=1e-6)


def test_integers_and_half_precision_are_computed_in_float32():
    fused = fuse(make("sparse"))
    expected = fused(np.array([1.0, 2.0], np.float32))
    for dtype in (np.int32, np.float16, jnp.bfloat16):
        found = fused(np.array([1, 2]).astype(dtype))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_shape_compiles_once():
    fused = fuse(make("tiny"))
    with compilations() as counts:
        for shift in range(3):
            fused(X + np.float32(shift))
        assert sum(counts.values()) == 1
        fused(X[:4])
        assert sum(counts.values()) == 2


def test_fused_nets_work_under_jit_vmap_and_grad():
    fused = fuse(make("sparse"))
    expected = np.asarray(fused(X))
    np.testing.assert_allclose(jax.jit(fused)(X), expected, atol=2e-6)
    np.testing.assert_allclose(jax.vmap(fused)(X), expected, atol=2e-5)
    slopes = jax.vmap(jax.grad(fused))(X)
    assert bool(jnp.isfinite(slopes).all()), "at x = 0, where square waves jump, too"
    net, step, smooth = make("sparse"), 1e-5, X != 0
    x, slopes = X[smooth].astype(np.float64), slopes[smooth]
    outputs = [oracle.forward(net.config, net.params, oracle.expand(x + s)) for s in (step, -step)]
    np.testing.assert_allclose(slopes, (outputs[0] - outputs[1])[:, 0] / (2 * step), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("inputs", "recipe"), [(257, "trained"), (300, "trained")])
def test_a_net_wider_than_its_recipe_is_refused(inputs, recipe):
    config = UltraSparseConfig.fixed_k(inputs)
    with pytest.raises(ValueError, match="240 noise columns"):
        fuse(nets.trained(config, nets.make(config)), recipe)


def test_checkpoints_fuse_without_their_own_arrays_changing():
    net = make("sparse")
    before = {path: array.copy() for path, array in net.params["layer_0"].items()}
    fuse(net)(X)
    assert all(
        np.array_equal(net.params["layer_0"][path], array, equal_nan=True) for path, array in before.items()
    )
    assert isinstance(net.model, UltraSparseNet)
