"""Statistics: the published numbers, NumPy's on any FFN, and that batches change nothing."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import (
    LowRankPredictor,
    Oracle,
    SparsityConfig,
    predictor_statistics,
)
from sparsejax.models.sparse_inference.calibration.statistics import RunningStatistics
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.ops.sparse_ffn import FFNWeights
from tests import golden
from tests.models.sparse_inference.calibration_data import D, F, made

NAMES = {
    "recall_topk": "recall",
    "recall_active": "recall_of_active",
    "precision_active": "precision",
    "energy_kept": "energy_kept",
    "rel_out_err": "output_error",
    "active_frac": "truly_active",
}


@pytest.mark.golden("calibration_a")
@pytest.mark.parametrize("case", ["before_random", "regression", "oracle"])
def test_published_numbers(case):
    arrays = golden.arrays("sparse_inference", "calibration_a")
    config = golden.manifest("sparse_inference")["calibration_a"]["config"]
    weights = FFNWeights(*(jnp.asarray(arrays[n]) for n in ("w1",)), jnp.asarray(arrays["w2"].T))
    weights = weights._replace(b_in=jnp.asarray(arrays["b1"]))
    predictor, name = {
        "before_random": (LowRankPredictor(arrays["p_init"], arrays["q_init"]), "before_random"),
        "regression": (
            LowRankPredictor(arrays["p_rrr_pre"], arrays["q_rrr_pre"], arrays["mean_pre"].astype(np.float32)),
            "reduced_rank_regression_on_preact_plus_bias",
        ),
        "oracle": (Oracle(weights, activation="relu", by="activation"), "oracle_topk_of_true_activations"),
    }[case]
    test = arrays["x"][int(arrays["n_calib"]) :]
    sparsity = SparsityConfig.with_top_k(config["top_k"])
    found = predictor_statistics(test, predictor, weights, sparsity, activation="relu")
    for theirs, expected in config["results"][name].items():
        assert getattr(found, NAMES[theirs]) == pytest.approx(expected, abs=2e-5), theirs
    assert found.samples == len(test) and found.active_fraction == config["top_k"] / len(arrays["w1"])


def by_numpy(inputs, weights, scores, selected, gated):
    wide = FFNWeights(*(None if part is None else np.asarray(part, np.float64) for part in weights))
    sums = inputs @ wide.w_in.T + (0 if wide.b_in is None else wide.b_in)
    if gated:
        values = np.maximum(inputs @ wide.w_gate.T + wide.b_gate, 0) * sums
    else:
        values = np.maximum(sums, 0)
    counts, norms = selected.sum(axis=1), np.linalg.norm(wide.w_out, axis=1)

    def found(sizes):
        ranks = np.argsort(np.argsort(-sizes, axis=1, kind="stable"), axis=1)
        return (selected & (ranks < counts[:, None])).sum() / counts.sum()

    active = values != 0
    kept = np.where(selected, values, 0)
    return {
        "recall": found(np.abs(values)),
        "recall_by_contribution": found(np.abs(values) * norms),
        "recall_of_active": (active & selected).sum() / active.sum(),
        "precision": (active & selected).sum() / selected.sum(),
        "energy_kept": (kept**2).sum() / (values**2).sum(),
        "output_error": np.linalg.norm((values - kept) @ wide.w_out) / np.linalg.norm(values @ wide.w_out),
        "active_fraction": selected.mean(),
        "truly_active": active.mean(),
    }


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_any_ffn_and_any_number_per_sample(gated):
    inputs, weights = made(gated=gated, samples=90)
    draws = np.random.default_rng(5)
    predictor = LowRankPredictor(draws.normal(size=(4, D)), draws.normal(size=(F, 4)))
    sparsity = SparsityConfig.with_threshold(2.0)
    scores = np.asarray(predictor.scores(jnp.asarray(inputs)))
    activation = "reglu" if gated else "relu"
    whole = predictor_statistics(inputs, predictor, weights, sparsity, activation=activation)
    expected = by_numpy(inputs, weights, scores, scores > 2, gated)
    for name, value in expected.items():
        assert getattr(whole, name) == pytest.approx(value, abs=2e-5), name
    running = RunningStatistics(predictor, weights, sparsity, activation=activation)
    for start, stop in ((0, 64), (64, 90)):
        running.add(inputs[start:stop].reshape(2, -1, D))
    streamed = running.result()
    for name in expected:
        assert getattr(streamed, name) == pytest.approx(getattr(whole, name), rel=1e-5)


def test_blocks_are_chosen_together():
    inputs, weights = made(samples=40)
    oracle = Oracle(weights, activation="relu")
    found = [
        predictor_statistics(
            inputs,
            oracle,
            weights,
            SparsityConfig.with_top_k(32),
            activation="relu",
            plan=FFNPlan(block_size=size),
        )
        for size in (1, 16)
    ]
    assert found[0].active_fraction == found[1].active_fraction == 32 / F
    assert found[0].recall_by_contribution == 1.0 > found[1].recall_by_contribution


def test_nothing_computed():
    inputs, weights = made(samples=8)
    predictor = LowRankPredictor(jnp.zeros((1, D)), jnp.zeros((F, 1)))
    found = predictor_statistics(
        inputs, predictor, weights, SparsityConfig.with_threshold(1.0), activation="relu"
    )
    assert (found.active_fraction, found.energy_kept, found.output_error) == (0.0, 0.0, 1.0)
    assert (found.recall_of_active, found.precision) == (0.0, 1.0)


def test_what_is_refused():
    inputs, weights = made(samples=8)
    good = LowRankPredictor(jnp.zeros((1, D)), jnp.zeros((F, 1)))
    top = SparsityConfig.with_top_k(3)
    for samples, predictor, sparsity, message in (
        ([], good, top, "there are no samples"),
        (inputs[:, :5], good, top, rf"\(\.\.\., {D}\) is needed"),
        (np.full_like(inputs, np.nan), good, top, "samples hold NaN"),
        (inputs, good, SparsityConfig.with_top_k(F + 1), "more than the 96 neurons"),
        (inputs, LowRankPredictor(jnp.zeros((1, D)), jnp.zeros((5, 1))), top, "scores 5 neurons"),
        (inputs, good.replace(bias=jnp.full(F, jnp.nan)), top, "the FFN's values hold NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor_statistics(samples, predictor, weights, sparsity, activation="relu")
    with pytest.raises(ValueError, match="group=1"):
        RunningStatistics(good, weights, top, plan=FFNPlan(group=0))
