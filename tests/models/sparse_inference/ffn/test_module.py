"""The published function from lists of neurons, gated ones, gradients, and what is refused."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.config import ModelConfig, SparsityConfig
from sparsejax.models.sparse_inference.ffn.module import SparseFFN
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
from tests import golden

ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu", "identity": "identity"}
CASES = ("ffn_small", "ffn_med", "ffn_wide_range")


def _golden_params(data):
    names = {"w_in": data["w1"], "w_out": data["w2"].T, "b_in": data["b1"], "b_out": data["b2"]}
    return {name: jnp.asarray(array) for name, array in names.items()}


def _golden_ffn(data, activation):
    d_out, d_ff = data["w2"].shape
    return SparseFFN(data["w1"].shape[1], d_ff, d_out, activation=ACTIVATIONS[activation])


@partial(jax.jit, static_argnums=0)
def _listed(ffn, params, inputs, indices):
    return ffn.apply({"params": params}, inputs, indices=indices)


@partial(jax.jit, static_argnums=0)
def _dense(ffn, params, inputs):
    return ffn.apply({"params": params}, inputs)


@golden.needs_golden
@pytest.mark.parametrize("case", CASES)
def test_golden_outputs(case):
    data = golden.arrays("sparse_inference", case)
    params, config = _golden_params(data), golden.manifest("sparse_inference")[case]["config"]
    for activation in ACTIVATIONS:
        ffn = _golden_ffn(data, activation)
        outputs = _dense(ffn, params, data["x"])
        np.testing.assert_allclose(outputs, data[f"dense_{activation}_exact"], rtol=1e-5, atol=1e-5)
        for k in config["ks"] if activation == "gelu" else config["ks"][:1]:
            outputs = _listed(ffn, params, data["x"], data[f"active_k{k}"])
            wanted = data[f"sparse_{activation}_k{k}_exact"]
            np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-5)
            wide = data[f"sparse_{activation}_k{k}_f64"]
            np.testing.assert_allclose(outputs, wide, atol=1e-5, rtol=1e-6)


@golden.needs_golden
def test_golden_order_does_not_matter_and_duplicates_count_twice():
    data = golden.arrays("sparse_inference", "ffn_med")
    ffn, params = _golden_ffn(data, "silu"), _golden_params(data)
    for name in ("unsorted", "dup"):
        outputs = _listed(ffn, params, data["x"][0], data[f"active_{name}"])
        np.testing.assert_allclose(outputs, data[f"sparse_silu_{name}_exact"], rtol=1e-5, atol=1e-5)


@golden.needs_golden
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_golden_gradients(activation):
    data = golden.arrays("sparse_inference", "ffn_small")
    ffn, names = _golden_ffn(data, activation), {"w_in": "w1", "b_in": "b1", "b_out": "b2"}

    @jax.jit
    def gradients(params, inputs, indices):
        def loss(params, inputs):
            outputs = ffn.apply({"params": params}, inputs, indices=indices)
            return 0.5 * jnp.square(outputs).sum(axis=-1).mean()

        return jax.grad(loss, (0, 1))(params, inputs)

    for part, indices in (("dense", data["active_k24"]), ("k1", data["active_k1"])):
        of_params, of_inputs = gradients(_golden_params(data), data["x"], indices)
        found = {name: of_params[mine] for mine, name in names.items()}
        found |= {"w2": of_params["w_out"].T, "x": of_inputs}
        for name, gradient in found.items():
            wanted = data[f"grad_{activation}_{part}_{name}"]
            np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


@golden.needs_golden
def test_golden_gated():
    data = golden.arrays("sparse_inference", "swiglu_runner_a")
    params = {"w_in": data["up"], "w_gate": data["gate"], "w_out": data["down"].T}
    ffn = SparseFFN(12, 40, activation="swiglu", gated=True, use_bias=False)
    np.testing.assert_allclose(_dense(ffn, params, data["x"]), data["dense"], rtol=1e-4, atol=1e-5)
    outputs = _listed(ffn, params, data["x"], data["active_desc"])
    np.testing.assert_allclose(outputs, data["sparse_correct_f64"], atol=1e-5)
    assert np.abs(outputs - data["rust_sparse_buggy"]).max() > 0.01


def test_gates_by_hand_in_float64():
    draws = np.random.default_rng(0)
    shapes = {"w_in": (9, 5), "w_gate": (9, 5), "w_out": (9, 3), "b_in": 9, "b_gate": 9, "b_out": 3}
    params = {name: draws.normal(size=shape) for name, shape in shapes.items()}
    inputs, listed = draws.normal(size=(2, 5)), np.asarray([7, 0, 4])
    up = inputs @ params["w_in"].T + params["b_in"]
    gate = inputs @ params["w_gate"].T + params["b_gate"]
    relu, silu = np.maximum(gate, 0), gate / (1 + np.exp(-gate))
    inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
    hidden = {
        "swiglu": silu * up,
        "silu": silu * up,
        "geglu": 0.5 * gate * (1 + np.tanh(inner)) * up,
        "reglu": relu * up,
        "drelu": relu * np.maximum(up, 0),
    }
    with jax.enable_x64(True):
        for activation, values in hidden.items():
            ffn = SparseFFN(5, 9, 3, activation=activation, gated=True)
            wanted = values[:, listed] @ params["w_out"][listed] + params["b_out"]
            given = {"params": jax.tree.map(jnp.asarray, params)}
            outputs = ffn.apply(given, jnp.asarray(inputs), indices=jnp.asarray(listed))
            np.testing.assert_allclose(outputs, wanted, atol=1e-12)


FFN = SparseFFN(4, 10, 3, activation="relu")
PARAMS = jax.jit(FFN.init)(jax.random.key(0), jnp.ones(4))


def test_lists_and_indices_without_a_neuron_give_the_bias_under_jit():
    params = {"params": {**PARAMS["params"], "b_out": jnp.asarray([1.0, 2.0, 3.0])}}
    for indices in (jnp.zeros(0, jnp.int32), jnp.asarray([10, -1])):
        outputs = jax.jit(lambda listed: FFN.apply(params, jnp.ones((2, 4)), indices=listed))(indices)
        np.testing.assert_array_equal(outputs, [[1, 2, 3]] * 2)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "no active neurons", {"indices": jnp.zeros(0, jnp.int32), "strict": True}),
        (IndexError, "neuron index 10 is out of range", {"indices": jnp.asarray([1, 10]), "strict": True}),
        (IndexError, "neuron index -1 is out of range", {"indices": jnp.asarray([-1]), "strict": True}),
        (ValueError, "indices must be integers", {"indices": jnp.ones(3)}),
        (ValueError, r"indices of shape \(3, 2\) do not fit", {"indices": jnp.ones((3, 2), int)}),
        (ValueError, r"scores must have shape \(10,\)", {"scores": jnp.ones(9)}),
        (ValueError, "scores choose nothing", {"scores": jnp.ones(10), "sparsity": None}),
        (ValueError, "the scores hold NaN", {"scores": jnp.full(10, jnp.nan), "strict": True}),
        (ValueError, "the scores hold NaN", {"scores": jnp.arange(10.0).at[3].set(jnp.nan)}),
        (ValueError, "only one of them", {"scores": jnp.ones(10), "indices": jnp.asarray([1])}),
        (ValueError, "top_k 11 is more", {"scores": jnp.ones(10), "sparsity": SparsityConfig.with_top_k(11)}),
        (
            ValueError,
            "no active neurons for token 0",
            {"scores": jnp.zeros(10), "sparsity": SparsityConfig.with_threshold(0.0), "strict": True},
        ),
    ],
)
def test_refused(error, message, options):
    given = {"sparsity": SparsityConfig.with_top_k(3)} | options
    with pytest.raises(error, match=message):
        FFN.apply(PARAMS, jnp.ones(4), **given)


def test_other_widths_and_activations_are_refused():
    with pytest.raises(ValueError, match=r"inputs of shape \(5,\) do not fit: \(..., 4\) is needed"):
        FFN.apply(PARAMS, jnp.ones(5))
    for options in ({}, {"indices": jnp.asarray([1])}, {"scores": jnp.ones(10)}):
        with pytest.raises(ValueError, match="inputs must be floating point, not int32"):
            FFN.apply(PARAMS, jnp.ones(4, jnp.int32), sparsity=SparsityConfig.with_top_k(3), **options)
    with pytest.raises(ValueError, match="it needs weights of a gate"):
        SparseFFN(4, 10, activation="drelu").init(jax.random.key(0), jnp.ones(4))
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda i: FFN.apply(PARAMS, jnp.ones(4), indices=i, strict=True))(jnp.asarray([1]))


def test_a_config_and_a_predictor_make_the_same_choice_as_scores():
    config = ModelConfig(4, 10, 3, rank=2, activation="relu", sparsity=SparsityConfig.with_top_k(4))
    ffn, inputs = SparseFFN.of_config(config), jax.random.normal(jax.random.key(1), (2, 4))
    predictor = LowRankPredictor.init(jax.random.key(2), 4, 10, rank=2)
    best = jnp.sort(jax.lax.top_k(predictor.scores(inputs), 4)[1], axis=-1)
    outputs = ffn.apply(PARAMS, inputs, predictor=predictor)
    np.testing.assert_allclose(outputs, FFN.apply(PARAMS, inputs, indices=best), atol=1e-6)


def test_a_config_sets_gates_and_quantised_weights_are_refused_by_name():
    config = ModelConfig(4, 10, 3, rank=2, activation="swiglu")
    assert SparseFFN.of_config(config).gated and not SparseFFN.of_config(ModelConfig(4, 10, 3, rank=2)).gated
    outputs = SparseFFN.of_config(config).init_with_output(jax.random.key(0), jnp.ones(4))[0]
    assert outputs.shape == (3,)
    with pytest.raises(ValueError, match="quantization='q4_0': the weights are parameters"):
        SparseFFN.of_config(ModelConfig(4, 10, 3, rank=2, quantization="q4_0"))


def test_compensation_is_added_to_what_scores_choose_alone():
    ffn = SparseFFN(4, 10, 3, activation="relu", compensation_rank=2)
    params = dict(jax.jit(ffn.init)(jax.random.key(0), jnp.ones(4))["params"])
    params["compensation"] = {**params["compensation"], "c": jnp.asarray([1.0, 2.0, 3.0])}
    scores, inputs = jnp.arange(10.0), jnp.ones(4)
    sparse = SparsityConfig.with_top_k(3)
    plain = FFN.apply({"params": {**params}}, inputs, scores=scores, sparsity=sparse)
    outputs = ffn.apply({"params": params}, inputs, scores=scores, sparsity=sparse)
    np.testing.assert_allclose(outputs - plain, [1, 2, 3], atol=1e-6)
    for options in ({}, {"indices": jnp.asarray([1, 5])}):
        bare = FFN.apply({"params": params}, inputs, **options)
        np.testing.assert_allclose(ffn.apply({"params": params}, inputs, **options), bare)
