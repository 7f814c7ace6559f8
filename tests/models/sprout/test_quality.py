"""What sparsity costs: learned, oracle and random selections, and the report of ``sparsejax verify``."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import sparsejax as sj
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.verification import verify
from sparsejax.models.sprout import SproutConfig, SproutFFN, SproutFFNConfig, SproutLM, equivalence
from sparsejax.models.sprout.config import DeepSets
from sparsejax.models.sprout.equivalence import equivalence_report
from sparsejax.models.sprout.oracle import selecting
from sparsejax.models.sprout.quality import (
    approximation,
    ffn_quality,
    logit_quality,
    random_cosine,
    shares_of,
)
from sparsejax.models.sprout.reference_ffn import reference_ffn
from tests.compilations import compilations

FFN = SproutFFNConfig(d_model=64, d_ff=256, block_size=16)
COUNTS = (25, 64, 128)


@cache
def ffn_parameters():
    return jax.jit(SproutFFN(FFN).init)(jax.random.key(0), jnp.ones((1, 64)))["params"]


@cache
def inputs():
    return jax.random.normal(jax.random.key(1), (256, 64))


def dense_and_activations():
    params = jax.device_get(ffn_parameters())
    sums = np.asarray(inputs(), np.float64) @ params["w_in"].T
    values = 0.5 * sums * (1 + erf(sums / np.sqrt(2)))
    return values @ params["w_out"], values, params["w_out"]


def cosine(left, right):
    return (left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum())


def test_selections_of_neurons_against_numpy():
    with compilations() as compiled:
        table = ffn_quality(jax.random.key(2), SproutFFN(FFN), ffn_parameters(), inputs(), COUNTS)
    assert compiled["_ffn_moments"] == 1
    router, oracle, drawn = table.quality.cosine[:, 0]
    dense, values, w_out = dense_and_activations()
    for place, count in enumerate(COUNTS):
        sizes = np.abs(values)
        kept = np.where(sizes >= np.sort(sizes, axis=1)[:, -count, None], values, 0) @ w_out
        assert oracle[place] == pytest.approx(cosine(kept, dense), abs=1e-5)
        assert table.quality.norm_ratio[1, 0, place] == pytest.approx(
            np.linalg.norm(kept) / np.linalg.norm(dense), abs=1e-5
        )
        assert table.quality.mse[1, 0, place] == pytest.approx(np.mean((kept - dense) ** 2), rel=1e-4)
        assert drawn[place] == pytest.approx(random_cosine(count, 256), abs=0.02)
        # The router starts as a copy of the input weights, which rank neurons by their signed sums.
        sums = np.asarray(inputs()) @ np.asarray(ffn_parameters()["w_in"]).T
        kept = np.where(sums >= np.sort(sums, axis=1)[:, -count, None], values, 0) @ w_out
        assert router[place] == pytest.approx(cosine(kept, dense), abs=1e-4)


def test_selections_of_blocks_against_numpy():
    table = ffn_quality(jax.random.key(2), SproutFFN(FFN), ffn_parameters(), inputs(), (64,), path="block")
    dense, values, w_out = dense_and_activations()
    sizes = np.abs(values).reshape(256, 16, 16).sum(axis=-1)
    chosen = np.repeat(sizes >= np.sort(sizes, axis=1)[:, -4, None], 16, axis=1)
    assert table.quality.cosine[1, 0, 0] == pytest.approx(cosine((values * chosen) @ w_out, dense), abs=1e-5)
    assert table.quality.cosine[2, 0, 0] == pytest.approx(0.5, abs=0.03)


def test_the_oracle_knows_biases():
    config = dataclasses.replace(FFN, use_bias=True, activation="relu")
    params = {**ffn_parameters(), "b_in": jnp.where(jnp.arange(256) < 20, 9.0, -9.0), "b_out": jnp.ones(64)}
    with selecting(jnp.asarray(1), jax.random.key(0)):
        found = SproutFFN(config).apply({"params": params}, inputs(), top_k=20)
    np.testing.assert_allclose(found, SproutFFN(config).apply({"params": params}, inputs()), atol=1e-5)


def test_logits_of_a_network():
    model = SproutLM(SproutConfig(vocab_size=30, d_model=8, d_ff=16, n_heads=2, n_layers=1, max_len=6))
    tokens = np.random.default_rng(0).integers(30, size=(2, 2, 6)).astype(np.int32)
    params = jax.tree.map(lambda leaf: 5 * leaf, jax.jit(model.init)(jax.random.key(0), tokens[0])["params"])
    masks = np.array([[[1] * 4 + [0] * 2] * 2] * 2)
    with compilations() as compiled:
        table = logit_quality(jax.random.key(0), model, params, tokens, (0, 4, 16), attention_masks=masks)
    assert compiled["_logit_moments"] == 1
    apply = jax.jit(lambda *call: model.apply({"params": params}, call[0], **call[1]).logits)
    logits = [
        [
            apply(batch, {"top_k": count, "attention_mask": mask})[:, :4]
            for batch, mask in zip(tokens, masks, strict=True)
        ]
        for count in map(jnp.asarray, (0, 4, 16))
    ]
    logits = np.asarray(logits)
    for place, sparse in enumerate(logits):
        assert table.quality.cosine[0, place] == pytest.approx(cosine(sparse, logits[2]), abs=1e-5)
    np.testing.assert_allclose(table.quality.cosine[:, 0], table.quality.cosine[0, 0], atol=1e-6)
    np.testing.assert_allclose(table.quality.mse[:, 2], 0, atol=1e-10)


def test_shares_and_closeness():
    assert shares_of(2048, (0.5, 0.25, 0.1)) == (1024, 512, 204)
    assert shares_of(4, (0.01,)) == (1,)
    same = approximation(np.ones((2, 3)), np.ones((2, 3)))
    assert [float(part) for part in same] == [0, 1, 1]
    nothing = approximation(np.zeros(3), np.ones(3))
    assert [float(part) for part in nothing] == [1, 0, 0]
    with pytest.raises(ValueError, match="none negative"):
        logit_quality(jax.random.key(0), None, {}, [], (-1,))


def test_reference_ffn_reads_selected_neurons_only():
    ffn = jax.device_get(ffn_parameters())
    used = np.random.default_rng(0).random((256, 256)) < 0.2
    dense = reference_ffn(FFN, ffn, inputs())
    np.testing.assert_allclose(dense, SproutFFN(FFN).apply({"params": ffn}, inputs()), atol=1e-6)
    _, values, w_out = dense_and_activations()
    np.testing.assert_allclose(reference_ffn(FFN, ffn, inputs(), used), (values * used) @ w_out, atol=1e-12)


@cache
def network():
    config = SproutConfig(vocab_size=40, d_model=16, d_ff=32, n_heads=2, n_layers=1, max_len=16, router="mlp")
    params = jax.jit(SproutLM(config).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    return Checkpoint("sprout", "v2", config, params)


def small_ffn():
    config = SproutFFNConfig(d_model=8, d_ff=20)
    params = jax.jit(SproutFFN(config).init)(jax.random.key(0), jnp.ones((1, 8)))["params"]
    return Checkpoint("sprout", "v1", config, params)


def test_the_published_equivalence_test_passes_with_true_numbers():
    checks = equivalence_report(network())
    assert all(check.passed for check in checks)
    told = {check.name: check.detail for check in checks}
    assert list(told) == [
        "dense equivalence",
        "sparse equivalence",
        "sparse approximation, 9%",
        "sparse approximation, 19%",
        "sparse approximation, 50%",
        "router statistics, layer 0",
        "gradient flow",
        "full-model forward",
    ]
    assert "limit 1e-05" in told["dense equivalence"]
    assert "expected of random 0.707" in told["sparse approximation, 50%"]
    assert "384 selections on 64 tokens (384 asked for)" in told["router statistics, layer 0"]
    assert "of 4 router parameters 0 have one" in told["gradient flow"]
    assert "4 with straight_through=True" in told["gradient flow"]


def test_verify_runs_the_report_of_the_family(tmp_path):
    sj.export_pt(small_ffn(), tmp_path / "ffn.pt")
    checks = {check.name: check for check in verify(tmp_path / "ffn.pt")}
    assert all(check.passed for check in checks.values())
    assert list(checks)[:4] == ["read", "sparsejax directory", "original layout", "dense equivalence"]
    assert "full-model forward" not in checks
    assert "2 of 2 parameters" in checks["gradient flow"].detail
    assert len(verify(tmp_path / "ffn.pt", family_report=False)) == 3


def test_an_ffn_that_computes_something_else_fails(monkeypatch):
    monkeypatch.setattr(equivalence, "reference_ffn", lambda *given: 1.001 * reference_ffn(*given))
    checks = {check.name: check for check in equivalence_report(small_ffn())}
    assert not checks["dense equivalence"].passed
    assert not checks["sparse equivalence"].passed
    assert "0.001" in checks["dense equivalence"].detail


def test_deep_sets_have_no_plain_ffn_to_be_equal_to():
    model = SproutFFN(SproutFFNConfig(d_model=8, d_ff=20, deep_sets=DeepSets(3, 5)))
    found = equivalence._dense_equivalence(model, {}, equivalence._inputs(model))
    assert found.passed and "has no output matrix" in found.detail


def test_parts_without_a_gradient_are_named():
    names = ("layer_1/ffn/mixer/rho", "layer_1/ffn/w_in", "embed/embedding")
    assert [equivalence._part(name) for name in names] == ["ffn/mixer", "ffn/w_in", "embed/embedding"]


def test_an_ffn_whose_outputs_are_nan_fails(monkeypatch):
    monkeypatch.setattr(equivalence, "reference_ffn", lambda *given: np.nan * reference_ffn(*given))
    ck = small_ffn()
    inputs = equivalence._inputs(ck.model)
    for found in (
        equivalence._dense_equivalence(ck.model, ck.params, inputs),
        equivalence._selected_equivalence(ck.model, ck.params, inputs, (3,)),
    ):
        assert not found.passed and "difference nan" in found.detail
