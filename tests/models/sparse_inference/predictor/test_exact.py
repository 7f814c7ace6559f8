"""Gates, the oracle and all neurons, against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import (
    Dense,
    GateThreshold,
    Oracle,
    SparsityConfig,
    select,
    select_mask,
)
from sparsejax.ops.sparse_ffn import FFNWeights

DRAWS = np.random.default_rng(0)
D, F = 5, 9
GATED = FFNWeights(
    *(DRAWS.normal(size=(F, D)).astype(np.float32) for _ in range(3)),
    *(DRAWS.normal(size=F).astype(np.float32) for _ in range(2)),
)
PLAIN = FFNWeights(GATED.w_in, GATED.w_out, b_in=GATED.b_in)
X = DRAWS.normal(size=(2, 3, D)).astype(np.float32)


def silu(x):
    return x / (1 + np.exp(-x))


def test_gates():
    found = GateThreshold.of_weights(GATED, activation="swiglu").scores(X)
    np.testing.assert_allclose(found, np.abs(silu(X @ GATED.w_gate.T + GATED.b_gate)), atol=1e-5)
    found = GateThreshold.of_weights(PLAIN, activation="relu").scores(X)
    np.testing.assert_allclose(found, np.maximum(X @ PLAIN.w_in.T + PLAIN.b_in, 0), atol=1e-5)


def test_quantised_gates():
    from sparsejax.ops.quantized import QuantizedTensor

    gate = QuantizedTensor.quantize(DRAWS.normal(size=(32, 32)).astype(np.float32), "q8_0")
    x = DRAWS.normal(size=(2, 32)).astype(np.float32)
    found = GateThreshold(gate, activation="relu").scores(x)
    np.testing.assert_allclose(found, np.maximum(x @ np.asarray(gate.dequantize()).T, 0), atol=1e-4)


def test_oracle():
    values = silu(X @ GATED.w_gate.T + GATED.b_gate) * (X @ GATED.w_in.T + GATED.b_in)
    found = Oracle(GATED, activation="swiglu", by="activation").scores(X)
    np.testing.assert_allclose(found, np.abs(values), atol=1e-5)
    found = jax.jit(lambda oracle, x: oracle.scores(x))(Oracle(GATED, activation="swiglu"), X)
    np.testing.assert_allclose(found, np.abs(values) * np.linalg.norm(GATED.w_out, axis=1), rtol=1e-4)
    assert Oracle(GATED).shape == (F, D)


def test_dense_selects_all():
    scores = Dense(F).scores(jnp.asarray(X))
    assert select_mask(scores, SparsityConfig.with_threshold(1e30)).all()
    assert select(scores[0, 0], SparsityConfig.with_top_k(2)).tolist() == [0, 1]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"\(\.\.\., 5\)"):
        GateThreshold.of_weights(GATED, activation="silu").scores(jnp.ones(4))
    with pytest.raises(ValueError, match="no strength 'size'"):
        Oracle(GATED, activation="silu", by="size").scores(X)
    with pytest.raises(ValueError, match="no activation 'swiglu'"):
        Oracle(PLAIN, activation="swiglu").scores(X)
