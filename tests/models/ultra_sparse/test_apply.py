"""`Checkpoint.apply`: shapes, refusals, how often it compiles; the pure function under transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.ultra_sparse import DenseNet, UltraSparseConfig, UltraSparseNet
from sparsejax.models.ultra_sparse.convert import evaluate
from tests.compilations import compilations
from tests.models.ultra_sparse import nets, oracle

architectures = pytest.mark.parametrize("name", nets.ARCHITECTURES)
one_of_each_layer = pytest.mark.parametrize(
    "name", ["fixed_k_of_many_outputs", "variable_k", "sensor_flip", "dense"]
)


def checkpoint(name, seed=0):
    config = nets.ARCHITECTURES[name]
    return Checkpoint("ultra_sparse", "sparse", config, jax.tree.map(jnp.asarray, nets.make(config, seed)))


def features(rows=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32)


def test_features_of_a_reference_may_be_called_x():
    ck, x = checkpoint("dense"), features()
    np.testing.assert_array_equal(evaluate(ck, {"x": x}), evaluate(ck, {"features": x}))


@architectures
def test_outputs_equal_the_loops_of_the_specification(name):
    ck, x = checkpoint(name), features()
    expected = oracle.forward(ck.config, ck.params, x)
    outputs = ck.apply(x)
    assert outputs.shape == (4, ck.config.output_size)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=2e-6)
    with jax.enable_x64(True):
        exact = ck.apply(x.astype(np.float64))
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-12)


@one_of_each_layer
def test_one_sample_is_a_vector_and_gives_a_vector(name):
    ck, x = checkpoint(name), features()
    alone = ck.apply(x[2])
    assert alone.shape == (ck.config.output_size,)
    np.testing.assert_allclose(alone, ck.apply(x)[2], rtol=0, atol=1e-6)


@one_of_each_layer
def test_features_first_gives_the_transpose(name):
    ck, x = checkpoint(name), features()
    outputs = ck.apply(x.T, features_first=True)
    assert outputs.shape == (ck.config.output_size, 4)
    np.testing.assert_allclose(outputs.T, ck.apply(x), rtol=0, atol=1e-6)
    np.testing.assert_allclose(ck.apply(x[1], features_first=True), outputs[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["fixed_k", "dense"])
@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, jnp.bfloat16, np.int32, np.int64, np.uint8, np.bool_]
)
def test_any_real_type_of_features_is_taken(name, dtype):
    ck = checkpoint(name)
    x = np.arange(12) % 2  # exact in every type
    np.testing.assert_allclose(ck.apply(x.astype(dtype)), ck.apply(x.astype(np.float32)), rtol=0, atol=1e-2)
    assert ck.apply(x.astype(dtype)).dtype == np.float32


def test_an_empty_batch_gives_an_empty_batch():
    assert checkpoint("fixed_k").apply(np.zeros((0, 12), np.float32)).shape == (0, 1)


def test_the_largest_finite_features_are_no_infinity():
    huge = np.full((2, 12), np.finfo(np.float32).max)
    assert bool(jnp.isfinite(checkpoint("fixed_k").apply(huge)).all()), "their sum overflows, they do not"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((np.zeros((4, 13), np.float32),), ("(4, 13)", "(b, 12) or (12,)", "expand_input")),
        ((np.zeros((12, 4), np.float32),), ("(12, 4)",)),
        ((np.zeros(4, np.float32),), ("(4,)",)),
        ((np.float32(1) * np.zeros(()),), ("array",)),
        ((np.zeros(()),), ("()",)),
        ((np.zeros((3, 0), np.float32),), ("(3, 0)",)),
        (("text",), ("str", "array")),
        ((None,), ("NoneType", "array")),
        (([0.0] * 12,), ("list", "array")),
        ((np.array(["a"] * 12),), ("<U1", "real numbers")),
        ((np.array([None] * 12),), ("object", "real numbers")),
        ((np.zeros(12, complex),), ("complex128", "real numbers")),
        ((), ("one array", "not 0")),
        ((np.zeros(12), np.zeros(12)), ("one array", "not 2")),
    ],
)
def test_inputs_that_cannot_be_right_give_one_clear_line(inputs, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        checkpoint("fixed_k").apply(*inputs)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def read_and_unread(ck):
    read = np.unique(ck.params["layer_0"]["indices"])
    return int(read[0]), int(np.setdiff1d(np.arange(12), read)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("row", [0, 3])
def test_nan_in_a_feature_that_is_read_is_refused(row, dtype):
    ck = checkpoint("fixed_k")
    read, _ = read_and_unread(ck)
    x = np.zeros((4, 12), dtype)
    x[row, read] = np.nan
    with pytest.raises(ValueError, match="output holds NaN"):
        ck.apply(x)
    with pytest.raises(ValueError, match="output holds NaN"):
        ck.apply(jnp.asarray(x.T), features_first=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_no_neuron_reads_changes_nothing(value):
    ck, x = checkpoint("fixed_k"), features()
    _, unread = read_and_unread(ck)
    spoiled = x.copy()
    spoiled[:, unread] = value
    np.testing.assert_array_equal(ck.apply(spoiled), ck.apply(x))


def test_an_infinite_feature_saturates_its_neurons_like_a_huge_one():
    ck, x = checkpoint("fixed_k"), features()
    read, _ = read_and_unread(ck)
    infinite, huge = x.copy(), x.copy()
    infinite[:, read], huge[:, read] = np.inf, 1e30
    np.testing.assert_array_equal(ck.apply(infinite), ck.apply(huge))


def test_there_is_no_verdict_inside_another_jit():
    ck = checkpoint("fixed_k")
    read, _ = read_and_unread(ck)
    x = jnp.zeros((4, 12)).at[1, read].set(jnp.nan)
    outputs = jax.jit(ck.apply)(x)
    assert jnp.isnan(outputs[1]).any()
    assert not jnp.isnan(outputs[0]).any()


def test_features_first_names_its_own_shape():
    with pytest.raises(ValueError, match=r"\(4, 12\) do not fit: this net reads \(12, b\)"):
        checkpoint("fixed_k").apply(features(), features_first=True)


# Compilation


def test_a_shape_compiles_once_and_a_second_net_of_the_config_not_at_all():
    first, second = checkpoint("sensor_dense", 1), checkpoint("sensor_dense", 2)
    x = features(rows=53)  # batch sizes that no other test uses
    with compilations() as counts:
        for seed in range(3):
            first.apply(features(rows=53, seed=seed))
        assert counts["_apply"] == 1
        second.apply(x)
        second.replace(metadata={"mse": 1.0}).apply(x)
        assert counts["_apply"] == 1, "parameters are arguments, not constants"
        first.apply(features(rows=59))
        assert counts["_apply"] == 2, "another shape"
        checkpoint("sensor_flip").apply(x)
        assert counts["_apply"] == 3, "another config"
    assert not np.array_equal(first.apply(x), second.apply(x))


def test_bool_options_are_static_and_compile_once_per_value():
    ck, square = (
        checkpoint("fixed_k_of_many_outputs"),
        np.eye(12, dtype=np.float32),
    )  # a shape of this test alone
    with compilations() as counts:
        for _ in range(3):
            ck.apply(square)
            ck.apply(square, features_first=True)
        assert counts["_apply"] == 2
        ck.apply(square, features_first=False)
        assert counts["_apply"] <= 3


# Under transforms


@one_of_each_layer
def test_gradients_are_finite_and_agree_with_differences(name):
    ck, x = checkpoint(name), features()

    def loss(params):
        return jnp.mean(ck.model.apply({"params": params}, x) ** 2)

    gradient = jax.jit(jax.grad(loss, allow_int=True))(ck.params)
    floats = [leaf for leaf in jax.tree.leaves(gradient) if leaf.dtype == np.float32]
    assert floats and all(bool(jnp.isfinite(leaf).all()) for leaf in floats)

    def exact(shift):
        params = dict(ck.params)
        params["layer_0"] = params["layer_0"] | {"bias": np.float64(params["layer_0"]["bias"]) + shift}
        return np.mean(oracle.forward(ck.config, params, x) ** 2)

    direction = np.random.default_rng(1).normal(size=ck.config.layers[0].features)
    expected = (exact(1e-6 * direction) - exact(-1e-6 * direction)) / 2e-6
    found = float(np.asarray(gradient["layer_0"]["bias"], np.float64) @ direction)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_population_of_nets_is_evaluated_by_vmap():
    config = nets.ARCHITECTURES["variable_k"]
    population = [nets.make(config, seed) for seed in range(5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *population)
    model, x = UltraSparseNet(config), features()
    outputs = jax.jit(jax.vmap(lambda params: model.apply({"params": params}, x)))(stacked)
    assert outputs.shape == (5, 4, 2)
    for found, params in zip(outputs, population, strict=True):
        np.testing.assert_allclose(found, oracle.forward(config, params, x), rtol=0, atol=2e-6)


def test_apply_works_inside_jit_vmap_and_grad():
    ck, x = checkpoint("fixed_k"), features()
    expected = ck.apply(x)
    np.testing.assert_allclose(jax.jit(ck.apply)(x), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(ck.apply)(x), expected, rtol=0, atol=1e-6)
    slope = jax.grad(lambda features: ck.apply(features).sum())(x)
    unread = np.setdiff1d(np.arange(12), ck.params["layer_0"]["indices"])
    assert unread.size and np.all(slope[:, unread] == 0)
    assert float(jnp.abs(slope).max()) > 0


# Fresh nets


def test_a_fresh_net_has_the_originals_initial_distribution():
    config = UltraSparseConfig.fixed_k(input_size=40, hidden_size=2000, output_size=2, inputs_per_neuron=4)
    params = jax.jit(UltraSparseNet(config).init)(jax.random.key(0), jnp.zeros(40))["params"]
    first, last = params["layer_0"], params["layer_1"]
    indices = np.asarray(first["indices"])
    assert indices.dtype == np.int32 and indices.min() == 0 and indices.max() == 39
    assert all(len(set(row)) == 4 for row in indices.tolist()), "no input twice in one neuron"
    counts = np.bincount(indices.ravel(), minlength=40)
    assert abs(counts - 200).max() < 5 * np.sqrt(200), "every input equally often: 5 sigma"
    assert float(jnp.std(first["weights"])) == pytest.approx(np.sqrt(2 / 4), rel=0.03)
    assert float(jnp.std(last["kernel"])) == pytest.approx(np.sqrt(2 / 2000), rel=0.05)
    assert not np.any(first["bias"]) and not np.any(last["bias"])


def test_the_default_nets_have_the_published_sizes():
    for net, count in ((UltraSparseNet(), 33), (DenseNet(), 2065)):
        shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(256))["params"]
        floats = [leaf for leaf in jax.tree.leaves(shapes) if leaf.dtype == np.float32]
        assert sum(leaf.size for leaf in floats) == net.config.num_parameters == count


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((256, 8, 1, 2), 33), ((256, 8, 1, 4), 49), ((64, 32, 10, 4), 490), ((30, 8, 2, 4), 58)],
)
def test_parameter_counts_of_the_specification(sizes, count):
    assert UltraSparseConfig.fixed_k(*sizes).num_parameters == count
