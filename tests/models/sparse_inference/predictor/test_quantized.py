"""Quantised predictors: scores of the dequantised matrices, and what cannot be quantised."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import Dense, LowRankPredictor, MLPPredictor, quantize_predictor
from sparsejax.models.sparse_inference.calibration.tune import mlp_of_low_rank
from sparsejax.ops.quantized import QuantizedTensor

DRAWS = np.random.default_rng(0)
P, Q, BIAS = (DRAWS.normal(size=shape).astype(np.float32) for shape in ((32, 64), (96, 32), (96,)))


@pytest.mark.parametrize("kind", [LowRankPredictor, MLPPredictor])
@pytest.mark.parametrize("named", ["q8_0", "q4_0"])
@pytest.mark.parametrize("tokens", [(), (1,), (3, 5)])
def test_scores_are_those_of_the_dequantised_matrices(kind, named, tokens):
    predictor = kind.from_matrices(P, Q, *(BIAS,) if kind is LowRankPredictor else (BIAS[:32], BIAS))
    quantized = quantize_predictor(predictor, named)
    plain = jax.tree.map(
        lambda part: part.dequantize() if isinstance(part, QuantizedTensor) else part,
        quantized,
        is_leaf=lambda part: isinstance(part, QuantizedTensor),
    )
    inputs = jnp.asarray(DRAWS.normal(size=(*tokens, 64)), jnp.float32)
    got = jax.jit(lambda one, x: one.scores(x))(quantized, inputs)
    assert got.shape == (*tokens, 96) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, plain.scores(inputs), rtol=1e-4, atol=1e-4)


def test_q8_0_changes_scores_by_less_than_a_hundredth():
    predictor = LowRankPredictor.from_matrices(P, Q, BIAS)
    inputs = jnp.asarray(DRAWS.normal(size=(50, 64)), jnp.float32)
    exact, got = (one.scores(inputs) for one in (predictor, quantize_predictor(predictor)))
    assert 0 < jnp.linalg.norm(got - exact) < 0.01 * jnp.linalg.norm(exact)


def test_quantising_again_changes_the_format_only():
    once = quantize_predictor(LowRankPredictor.from_matrices(P, Q), "q8_0")
    again = quantize_predictor(once, "q8_0")
    np.testing.assert_array_equal(again.q.dequantize(), once.q.dequantize())
    assert again.bias is None and again.shape == (96, 64)


@pytest.mark.parametrize(
    ("rank", "named", "message"),
    [(20, "q8_0", r"predictor's q \(96, 20\) cannot be quantised.*32"), (32, "q9", "q9")],
)
def test_what_cannot_be_quantised_is_named(rank, named, message):
    with pytest.raises(ValueError, match=message):
        quantize_predictor(LowRankPredictor.from_matrices(P[:rank], Q[:, :rank]), named)


def test_other_predictors_are_refused():
    with pytest.raises(ValueError, match="a Dense cannot be quantised"):
        quantize_predictor(Dense(3))


def test_a_network_of_two_layers_is_made_before_quantising():
    with pytest.raises(ValueError, match="before"):
        mlp_of_low_rank(quantize_predictor(LowRankPredictor.from_matrices(P, Q)))
