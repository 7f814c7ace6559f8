"""The decoder against NumPy float64, its cache against the full pass, and what it refuses."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sparse_inference.llama.model import LlamaLM
from sparsejax.models.sparse_inference.llama.rope import RopeConfig
from sparsejax.models.sparse_inference.llama.state import check_state, grow_state, initial_state
from sparsejax.models.sparse_inference.llama.weights import (
    llama_shapes,
    llama_tensors,
    quantize_llama,
)
from tests.models.sparse_inference import llama_oracle
from tests.models.sparse_inference.llama_files import llama_params

SIZES = {"vocab_size": 29, "d_model": 12, "d_ff": 20, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
YARN = {"scaling": "yarn", "factor": 4.0, "original_context": 40, "beta_fast": 4.0}
KINDS = {
    "llama": {"head_dim": 8},
    "reglu_tied": {"head_dim": 6, "activation": "relu", "tied_output": True, "norm_eps": 1e-3},
    "mistral_window": {"architecture": "mistral", "head_dim": 8, "sliding_window": 4, "n_kv_heads": 1},
    "qwen2": {
        "architecture": "qwen2",
        "head_dim": 8,
        "biases": ("attn_q", "attn_k", "attn_v"),
        "rope": RopeConfig(8, base=1e6, interleaved=False),
    },
    "linear": {"head_dim": 8, "rope": RopeConfig(6, scaling="linear", factor=3.0)},
    "yarn": {"head_dim": 8, "rope": RopeConfig(8, base=100.0, **YARN)},
    "llama3": {"head_dim": 8, "rope_factors": True, "biases": ("attn_output", "ffn_gate", "ffn_down")},
}


@partial(jax.jit, static_argnums=(0, 3))
def run(model, params, tokens, capacity=0, state=None, *, counts=None):
    return model.apply({"params": params}, tokens, state, counts=counts, capacity=capacity)


def made(kind):
    config = LlamaConfig(**{**SIZES, **KINDS[kind]})
    tensors = llama_oracle.random_tensors(config)
    return LlamaLM(config), llama_params(config, llama_oracle.file_tensors(tensors)), tensors


@pytest.mark.parametrize("kind", ["mixed", "qwen2", "llama3"])
def test_shapes_are_told_without_tracing_the_network(kind):
    if kind == "mixed":
        formats = (("blk.0.ffn_up.weight", "q4_k"), ("blk.1.ffn_down.weight", "q8_0"))
        formats += (("output.weight", "bf16"), ("blk.0.attn_q.weight", "f16"))
        config = LlamaConfig(**{**SIZES, "d_model": 256, "d_ff": 96}, formats=formats)
    else:
        config = LlamaConfig(**{**SIZES, **KINDS[kind]})
    traced = jax.eval_shape(LlamaLM(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    assert llama_shapes(config) == traced


TOKENS = np.random.default_rng(1).integers(0, SIZES["vocab_size"], (2, 11)).astype(np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_float64(kind):
    model, params, tensors = made(kind)
    found = run(model, params, TOKENS, 64)
    for row, logits in zip(TOKENS, np.asarray(found.logits), strict=True):
        expected = llama_oracle.logits(model.config, tensors, row)
        np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
    assert found.logits.dtype == jnp.float32
    back = llama_tensors(model.config, params)
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)


def operands(jaxpr):
    """Dtypes of what is multiplied anywhere in a program."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found |= {operand.aval.dtype for operand in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            found |= operands(inner)
    return found


class Ones(NamedTuple):
    """Scores that are alike."""

    def scores(self, inputs):
        return jnp.ones((*inputs.shape[:-1], SIZES["d_ff"]))


MASKED = {"predictors": (Ones(), Ones()), "active_fraction": 0.5, "plan": FFNPlan(path="masked")}


@pytest.mark.parametrize("options", [{}, MASKED], ids=["all", "masked"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_plain_weights_are_multiplied_in_the_dtype_of_the_computation(dtype, options):
    model, params, _ = made("reglu_tied")
    apply = partial(LlamaLM(model.config, dtype=dtype).apply, capacity=0, **options)
    program = jax.make_jaxpr(lambda params: apply({"params": params}, TOKENS).logits)(params)
    assert operands(program.jaxpr) == {jnp.dtype(dtype)}
    assert program.out_avals[0].dtype == jnp.float32


def test_matrices_of_float64_are_read_by_a_network_of_float32():
    with jax.enable_x64(True):
        model, params, _ = made("reglu_tied")
        wide = jax.tree.map(lambda part: part.astype(jnp.float64 if part.ndim > 1 else jnp.float32), params)
        found = jax.eval_shape(lambda params: model.apply({"params": params}, TOKENS), wide)
    assert found.logits.dtype == jnp.float32


@pytest.fixture(scope="module")
def window():
    return made("mistral_window")


def test_cached_steps_of_rows_of_any_length_equal_the_full_pass(window):
    model, params, _ = window
    whole = np.asarray(run(model, params, TOKENS).logits)
    lengths = np.array([6, 3], np.int32)
    found = run(model, params, TOKENS[:, :6], 16, counts=lengths)
    np.testing.assert_allclose(found.logits[0], whole[0, :6], atol=1e-4)
    np.testing.assert_allclose(found.logits[1, :3], whole[1, :3], atol=1e-4)
    state = found.state
    np.testing.assert_array_equal(state.lengths, lengths)
    for step in range(4):
        newest = TOKENS[np.arange(2), lengths + step][:, None]
        found = run(model, params, newest, 0, state)
        state = found.state
        expected = whole[np.arange(2), lengths + step]
        np.testing.assert_allclose(found.logits[:, 0], expected, atol=1e-4)
    np.testing.assert_array_equal(state.lengths, lengths + 4)


def test_a_grown_cache_goes_on_and_a_full_one_is_not_silent(window):
    model, params, _ = window
    whole = np.asarray(run(model, params, TOKENS).logits)
    state = run(model, params, TOKENS[:, :8], 8).state
    full = run(model, params, TOKENS[:, 8:9], 0, state)
    assert np.isnan(full.logits).all()
    assert grow_state(state, 8) is state
    grown = run(model, params, TOKENS[:, 8:9], 0, grow_state(state, 16))
    np.testing.assert_allclose(grown.logits[:, 0], whole[:, 8], atol=1e-4)
    with pytest.raises(ValueError, match="cannot shrink to 8"):
        grow_state(grown.state, 8)


def test_states_that_do_not_fit_are_refused(window):
    config = window[0].config
    state = initial_state(config, 2, 8)
    check_state(config, state, 2, 8)
    used = state.replace(lengths=np.array([3, 7], np.int32))
    for case, message in (
        ((config, used, 2, 2), "2 more tokens do not fit: of the state's 8 slots 7 are in use"),
        ((config, state, 3, 1), r"2 of \(3, 1, 8, 8\) are needed"),
        ((dataclasses.replace(config, n_layers=3), state, 2, 1), "a state of 2 blocks"),
        ((config, {}, 2, 1), "state is a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            check_state(*case)
    # What is traced has no number yet, but a shape.
    jax.eval_shape(lambda lengths: check_state(config, state.replace(lengths=lengths), 2, 99), used.lengths)


def test_a_float16_cache_rounds_keys_and_values(window):
    model, params, _ = window
    state = initial_state(model.config, 2, 64, "float16")
    found = run(model, params, TOKENS, 0, state)
    whole = run(model, params, TOKENS)
    assert found.state.keys[0].dtype == jnp.float16
    difference = np.abs(np.asarray(found.logits - whole.logits)).max()
    assert 0 < difference < 0.05


def test_matrices_that_are_no_whole_blocks_are_named():
    config = LlamaConfig(**{**SIZES, "d_model": 24}, head_dim=8)
    shapes = jax.eval_shape(LlamaLM(config).init, jax.random.key(0), TOKENS)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with pytest.raises(
        ValueError, match=r"blk\.0\.attn_q\.weight: rows of \d+ elements are not whole blocks"
    ):
        quantize_llama(config, params, "q8_0", embedding=False)


def test_quantised_weights_stay_quantised_and_give_the_logits_of_their_values():
    config = LlamaConfig(**{**SIZES, "d_model": 32, "d_ff": 64}, head_dim=8)
    tensors = llama_oracle.random_tensors(config, scale=0.2)
    plain = llama_params(config, llama_oracle.file_tensors(tensors))
    quantised, params = quantize_llama(config, plain, "q8_0")
    assert quantised.format_of("blk.1.ffn_down.weight") == "q8_0"
    files = llama_tensors(quantised, params)
    values = {
        name: np.asarray(leaf.dequantize()) if hasattr(leaf, "dequantize") else leaf
        for name, leaf in files.items()
    }
    logits = run(LlamaLM(quantised), params, TOKENS).logits
    expected = np.array([llama_oracle.logits(config, values, row) for row in TOKENS])
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
    shapes = jax.eval_shape(LlamaLM(quantised).init, jax.random.key(0), TOKENS)["params"]
    assert jax.tree.structure(shapes) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)


def test_the_config_survives_json():
    rope = RopeConfig(2, **YARN)
    config = LlamaConfig(**SIZES, rope=rope, biases=("attn_q",), formats=(("a", "q4_0"),))
    document = config.to_json()
    document["biases"], document["formats"] = (
        list(document["biases"]),
        [list(pair) for pair in document["formats"]],
    )
    assert LlamaConfig.from_json(document) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_kv_heads": 3}, "n_heads 4 does not divide into n_kv_heads=3"),
        ({"d_ff": 0}, "d_ff must be a whole number of at least 1"),
        ({"activation": "mish"}, "no activation 'mish'"),
        ({"architecture": "gemma"}, "architecture 'gemma' is not one of"),
        ({"biases": ("ffn_norm",)}, "biases .'ffn_norm'. are not among"),
        ({"sliding_window": 0}, "sliding_window must be"),
        ({"rope": RopeConfig(16)}, "rope.dimension 16 is more than head_dim 8"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0"),
    ],
)
def test_what_is_no_network_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**{**SIZES, "head_dim": 8, **fields})


def test_calls_that_cannot_be_right_are_refused(window):
    model, params, _ = window
    with pytest.raises(ValueError, match=r"tokens of shape \(3,\) do not fit"):
        run(model, params, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="11 tokens do not fit into a state of capacity=8"):
        run(model, params, TOKENS, 8)
    wrong = {**params, "token_embd": {"weight": jnp.zeros((28, 12))}}
    with pytest.raises(ValueError, match="token_embd.weight has shape"):
        run(model, wrong, TOKENS)


def test_gradients_are_finite_and_a_step_learns(window):
    model, params, _ = window

    def loss(params):
        ahead = jax.nn.log_softmax(model.apply({"params": params}, TOKENS, capacity=0).logits[:, :-1])
        return -jnp.take_along_axis(ahead, TOKENS[:, 1:, None], axis=-1).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    stepped = jax.tree.map(lambda leaf, slope: leaf - 0.01 * slope, params, gradients)
    assert jax.jit(loss)(stepped) < value


def test_the_published_sizes_have_the_published_shapes():
    config = LlamaConfig(
        vocab_size=128256, d_model=4096, d_ff=14336, n_layers=32, n_heads=32, n_kv_heads=8, rope_factors=True
    )
    shapes = jax.eval_shape(LlamaLM(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 8_030_261_248 + 64
