"""Quantised matrices give what their dequantised values give, for whole tiles of neurons."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn import quantized
from sparsejax.models.sparse_inference.ffn.module import SparseFFN
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.ffn.quantized import whole_quantized_ffn
from sparsejax.ops.quantized import QuantizedFFN, QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn

DRAWS = np.random.default_rng(0)
SHAPES = {"w_in": (128, 32), "w_gate": (128, 32), "w_out": (32, 128)}
QUANTIZED = {
    name: QuantizedTensor.quantize(DRAWS.normal(size=shape).astype(np.float32), "q8_0")
    for name, shape in SHAPES.items()
}
PLAIN = {name: np.asarray(matrix.dequantize()) for name, matrix in QUANTIZED.items()}
PLAIN["w_out"] = PLAIN["w_out"].T
INPUTS = DRAWS.normal(size=(4, 32)).astype(np.float32)
SCORES = DRAWS.normal(size=(4, 128)).astype(np.float32)


def _ffn(**options):
    return SparseFFN(32, 128, activation="swiglu", gated=True, use_bias=False, **options)


@partial(jax.jit, static_argnums=0, static_argnames="sparsity")
def _outputs(ffn, params, **options):
    return ffn.apply({"params": params}, INPUTS, **options)


@pytest.mark.parametrize("group", [1, 2, 0])
def test_tiles_of_neurons(group):
    options = {"scores": SCORES, "sparsity": SparsityConfig.with_top_k(64)}
    mine, plain = FFNPlan(32, group), FFNPlan(32, group, path="masked")
    outputs = _outputs(_ffn(plan=mine), QUANTIZED, **options)
    wanted = _outputs(_ffn(plan=plain), PLAIN, **options)
    np.testing.assert_allclose(outputs, wanted, atol=2e-3)


def test_all_neurons_and_thresholds():
    np.testing.assert_allclose(_outputs(_ffn(), QUANTIZED), _outputs(_ffn(), PLAIN), atol=2e-3)
    options = {"scores": SCORES, "sparsity": SparsityConfig.with_threshold(2.3)}
    outputs = _outputs(_ffn(), QUANTIZED, **options)
    wanted = _outputs(_ffn(plan=FFNPlan(32, path="masked")), PLAIN, **options)
    np.testing.assert_allclose(outputs, wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("sparsity", "added"),
    [
        (SparsityConfig.with_top_k(96), 100),
        (SparsityConfig.with_top_k(128), 0),
        (SparsityConfig.with_threshold(0.0), 0),
        (SparsityConfig.with_threshold(2.3), 100),
    ],
)
def test_compensation_is_not_added_to_what_all_neurons_give(sparsity, added):
    fitted = {"u": jnp.zeros((32, 1)), "v": jnp.zeros((1, 32)), "c": jnp.full(32, 100.0)}
    options = {"scores": SCORES, "sparsity": sparsity}
    bare = _outputs(_ffn(), QUANTIZED, **options)
    outputs = _outputs(_ffn(compensation_rank=1), QUANTIZED | {"compensation": fitted}, **options)
    np.testing.assert_allclose(outputs - bare, added, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"scores": SCORES * np.nan}, "the scores hold NaN"),
        ({}, {"scores": SCORES[:, :64]}, r"scores must have shape \(4, 128\), not \(4, 64\)"),
        (
            {},
            {"scores": SCORES, "sparsity": SparsityConfig.with_threshold(9.0), "strict": True},
            "no active neurons",
        ),
        ({}, {"indices": jnp.asarray([1])}, "chosen in whole tiles"),
        ({"w_in": PLAIN["w_in"]}, {}, "quantise all of them or none"),
        ({"w_out": QUANTIZED["w_in"]}, {}, r"w_out is quantised of shape \(128, 32\); \(32, 128\) is needed"),
    ],
)
def test_refused(change, options, message):
    options = {"sparsity": SparsityConfig.with_top_k(64)} | options
    with pytest.raises(ValueError, match=message):
        _ffn().apply({"params": QUANTIZED | change}, INPUTS, **options)


@pytest.mark.parametrize("activation", ["drelu", "silu"])
@pytest.mark.parametrize(
    ("plan", "top_k"),
    [
        (FFNPlan(16), 64),  # no whole tiles: all are computed and masked
        (FFNPlan(32), 112),  # too many to be read by tiles
        (FFNPlan(32), 64),
        (FFNPlan(path="dense"), 64),
        (FFNPlan(32), None),
    ],
)
def test_every_activation_by_tiles_and_masked(activation, plan, top_k):
    scores = {} if top_k is None else {"scores": SCORES, "sparsity": SparsityConfig.with_top_k(top_k)}
    ffn = SparseFFN(32, 128, activation=activation, gated=True, use_bias=False, plan=plan)
    outputs, wanted = (_outputs(ffn, params, **scores) for params in (QUANTIZED, PLAIN))
    np.testing.assert_allclose(outputs, wanted, atol=2e-3)


@pytest.mark.parametrize("group", [1, 0])
def test_many_tokens(group):
    """More than are read one after the other: each with its own tiles, and all with the same ones."""
    inputs, scores = (DRAWS.normal(size=(11, size)).astype(np.float32) for size in (32, 128))
    ffn = _ffn(plan=FFNPlan(32, group), sparsity=SparsityConfig.with_top_k(64))
    run = jax.jit(lambda params: ffn.apply({"params": params}, inputs, scores=scores))
    np.testing.assert_allclose(run(QUANTIZED), run(PLAIN), atol=2e-3)


@pytest.mark.parametrize(
    ("tokens", "group", "top_k", "read"),
    [(1, 1, 96, True), (8, 1, 96, True), (11, 1, 32, False), (11, 0, 64, True), (11, 0, 96, False)],
)
def test_tiles_are_read_where_that_saves_time(monkeypatch, tokens, group, top_k, read):
    reads = []

    def spy(inputs, *others, **options):
        reads.append(True)
        return jnp.zeros(inputs.shape)

    monkeypatch.setattr(quantized, "sparse_quantized_ffn", spy)
    inputs, scores = jnp.ones((tokens, 32)), jnp.zeros((tokens, 128))
    few, plan = SparsityConfig.with_top_k(top_k), FFNPlan(32, group)
    weights = QuantizedFFN(QUANTIZED["w_in"], QUANTIZED["w_out"], QUANTIZED["w_gate"])
    run = partial(quantized.predicted_quantized_ffn, inputs, weights, sparsity=few, plan=plan)
    jax.eval_shape(lambda scores: run(scores=scores), scores)
    assert bool(reads) is read


def test_matrices_that_are_not_quantised_stand_beside_those_that_are():
    weights = QuantizedFFN(QUANTIZED["w_in"], PLAIN["w_out"], PLAIN["w_gate"])
    wanted = dense_ffn(
        INPUTS, FFNWeights(PLAIN["w_in"], PLAIN["w_out"], PLAIN["w_gate"]), activation="swiglu"
    )
    np.testing.assert_allclose(whole_quantized_ffn(INPUTS, weights), wanted, atol=2e-3)
