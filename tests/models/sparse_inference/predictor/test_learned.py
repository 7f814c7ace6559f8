"""Predictors with weights: the published scores, what goes through jit, and what is refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint import torch_file
from sparsejax.models.sparse_inference import (
    LowRankPredictor,
    MLPPredictor,
    SparsityConfig,
    select,
    select_mask,
)
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn, masked_ffn
from tests import golden

FAMILY = "sparse_inference"
DRAWS = np.random.default_rng(0)


def draw(*shape):
    return DRAWS.normal(size=shape).astype(np.float32)


jit_select = jax.jit(select, static_argnames="sparsity")
jit_mask = jax.jit(select_mask, static_argnames="sparsity")


@pytest.fixture(scope="module")
def run():
    return jax.jit(lambda predictor, inputs: predictor.scores(inputs))


@pytest.mark.golden("predictor_small", "predictor_med")
@pytest.mark.parametrize("case", ["predictor_small", "predictor_med"])
def test_published_scores_and_selections(case, run):
    arrays = golden.arrays(FAMILY, case)
    predictor = LowRankPredictor.from_matrices(arrays["p_matrix"], arrays["q_matrix"])
    scores = run(predictor, arrays["x"])
    np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, arrays["scores_f64"], rtol=1e-5, atol=1e-5)
    config = golden.manifest(FAMILY)[case]["config"]
    for top_k in config["ks"]:
        found = jit_select(scores[:-1], sparsity=SparsityConfig.with_top_k(top_k))
        np.testing.assert_array_equal(found, arrays[f"topk_{top_k}"])
    for threshold in config["thresholds"]:
        found = jit_mask(scores, sparsity=SparsityConfig.with_threshold(threshold))
        np.testing.assert_array_equal(found, arrays[f"thr_{threshold}_mask"])
        listed = select(scores[0], SparsityConfig.with_threshold(threshold))
        np.testing.assert_array_equal(listed, np.flatnonzero(arrays[f"thr_{threshold}_mask"][0]))
    both = SparsityConfig(threshold=0.0, top_k=len(arrays["topk_wins_over_threshold"]))
    np.testing.assert_array_equal(jit_select(scores[0], sparsity=both), arrays["topk_wins_over_threshold"])
    assert select(scores[-1], SparsityConfig.with_threshold(0.0)).shape == (0,)  # zero inputs


@pytest.mark.golden("predictor_small")
def test_published_file_has_the_same_matrices():
    document = golden.document(FAMILY, "predictor_small.serde")
    arrays = golden.arrays(FAMILY, "predictor_small")
    matrices = [
        np.reshape(document[name]["data"], document[name]["dim"]) for name in ("p_matrix", "q_matrix")
    ]
    predictor = LowRankPredictor.from_matrices(*matrices)
    np.testing.assert_allclose(predictor.p, arrays["p_matrix"], rtol=1e-6)
    assert SparsityConfig.from_json(json.loads(json.dumps(document["config"]))).count(64) == 1


@pytest.mark.golden("powerinfer_a")
def test_powerinfer_scores_and_outputs(run):
    arrays = golden.arrays(FAMILY, "powerinfer_a")
    state = torch_file.read(golden.path(FAMILY, "powerinfer_model_0_a.pt"))
    predictor = MLPPredictor.from_matrices(*(np.asarray(state[f"fc{layer}.weight"]) for layer in (1, 2)))
    logits = run(predictor, arrays["x"])
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)
    weights = FFNWeights(
        jnp.asarray(arrays["up"]), jnp.asarray(arrays["down"].T), jnp.asarray(arrays["gate"])
    )
    mask = select_mask(logits, SparsityConfig.with_threshold(0.0))
    found = masked_ffn(jnp.asarray(arrays["x"]), weights, mask, activation="reglu")
    np.testing.assert_allclose(found, arrays["reglu_masked"], atol=1e-5)
    found = dense_ffn(jnp.asarray(arrays["x"]), weights, activation="reglu")
    np.testing.assert_allclose(found, arrays["reglu_dense"], atol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6)])
def test_scores_equal_float64(shape, run):
    p, q, bias, hidden_bias, x = draw(4, 6), draw(10, 4), draw(10), draw(4), draw(*shape)
    wide = [array.astype(np.float64) for array in (p, q, bias, hidden_bias, x)]
    found = run(LowRankPredictor(p, q, bias), x)
    np.testing.assert_allclose(found, wide[4] @ wide[0].T @ wide[1].T + wide[2], rtol=1e-5, atol=1e-5)
    hidden = np.maximum(wide[4] @ wide[0].T + wide[3], 0)
    found = run(MLPPredictor(p, q, hidden_bias, bias), x)
    np.testing.assert_allclose(found, hidden @ wide[1].T + wide[2], rtol=1e-5, atol=1e-5)


def test_bfloat16_is_summed_in_float32():
    predictor = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16), LowRankPredictor(draw(4, 6), draw(10, 4))
    )
    scores = predictor.scores(jnp.ones(6, jnp.bfloat16))
    assert scores.dtype == jnp.float32


def test_initial_ones_are_as_published():
    predictor = LowRankPredictor.init(jax.random.key(0), 200, 300, rank=20)
    assert predictor.shape == (300, 200) and predictor.bias is None
    for matrix in (predictor.p, predictor.q):
        assert -0.01 <= float(matrix.min()) < -0.0099 and 0.0099 < float(matrix.max()) <= 0.01


def test_pytree_without_bias_has_two_leaves():
    predictor = LowRankPredictor(draw(4, 6), draw(10, 4))
    leaves, tree = jax.tree.flatten(predictor)
    assert len(leaves) == 2 and jax.tree.unflatten(tree, leaves).bias is None
    assert MLPPredictor.init(jax.random.key(0), 6, 10, rank=4, use_bias=False).bias2 is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankPredictor.from_matrices(np.ones((2, 4)), np.ones((8, 3))), "must be"),
        (lambda: LowRankPredictor.from_matrices(np.ones(4), np.ones((8, 3))), "must be"),
        (lambda: LowRankPredictor.from_matrices(np.ones((5, 4)), np.ones((8, 5))), "rank must be 1 to 4"),
        (lambda: LowRankPredictor.from_matrices(np.ones((2, 4)), np.ones((8, 2)), np.ones(7)), "bias must"),
        (lambda: LowRankPredictor.from_matrices(np.full((2, 4), np.nan), np.ones((8, 2))), "p holds NaN"),
        (lambda: LowRankPredictor.init(jax.random.key(0), 4, 8, rank=0), "rank must be 1 to 4"),
        (lambda: LowRankPredictor.init(jax.random.key(0), 4, 8, rank=5), "rank must be 1 to 4"),
        (lambda: MLPPredictor.from_matrices(np.ones((2, 4)), np.ones((8, 2)), np.ones(8)), "bias1 must"),
        (lambda: MLPPredictor.init(jax.random.key(0), 4, 8, rank=0), "at least 1"),
        (lambda: LowRankPredictor(jnp.ones((2, 4)), jnp.ones((8, 2))).scores(jnp.ones((3, 5))), "4"),
        (lambda: MLPPredictor(jnp.ones((2, 4)), jnp.ones((8, 2))).scores(jnp.ones(())), "4"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
