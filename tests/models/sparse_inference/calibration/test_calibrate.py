"""Calibration: the published recall, streams, thresholds, training, and what is refused."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import (
    GateThreshold,
    LowRankPredictor,
    MLPPredictor,
    Oracle,
    SparsityConfig,
    calibrate,
    predictor_statistics,
)
from sparsejax.models.sparse_inference.calibration.calibrate import Calibrator, fit_low_rank
from sparsejax.models.sparse_inference.calibration.strength import strengths
from sparsejax.ops.sparse_ffn import FFNWeights
from tests import golden
from tests.models.sparse_inference.calibration_data import D, F, made

TOP = SparsityConfig.with_top_k(12)
SEEN = 500


def recall(found, inputs, weights, activation="relu", sparsity=TOP):
    return predictor_statistics(inputs, found.predictor, weights, sparsity, activation=activation).recall


@pytest.fixture(scope="module")
def published():
    arrays = golden.arrays("sparse_inference", "calibration_a")
    weights = FFNWeights(
        jnp.asarray(arrays["w1"]), jnp.asarray(arrays["w2"].T), b_in=jnp.asarray(arrays["b1"])
    )
    count = int(arrays["n_calib"])
    return arrays, weights, arrays["x"][:count], arrays["x"][count:]


@pytest.mark.golden("calibration_a")
def test_the_published_formula(published):
    arrays, weights, seen, test = published
    top = SparsityConfig.with_top_k(16)
    options = {"activation": "relu", "rank": 8}
    given = calibrate(seen, weights, top, formula="published", **options)
    product = np.asarray(given.predictor.q) @ np.asarray(given.predictor.p)
    expected = arrays["q_rrr_pre"] @ arrays["p_rrr_pre"]
    np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(given.predictor.bias, arrays["mean_pre"], rtol=1e-5)
    np.testing.assert_allclose(given.predictor.scores(test), arrays["scores_rrr_pre_test"], atol=1e-4)
    results = golden.manifest("sparse_inference")["calibration_a"]["config"]["results"]
    at_least = results["reduced_rank_regression_on_preact_plus_bias"]["recall_topk"]
    assert recall(given, test, weights, sparsity=top) >= at_least - 1e-6
    centred = calibrate(seen, weights, top, **options)
    assert recall(centred, test, weights, sparsity=top) >= 0.877


@pytest.fixture(scope="module")
def plain():
    return made()


@pytest.fixture(scope="module")
def gated():
    return made(gated=True)


def test_a_stream_gives_what_an_array_gives(plain):
    inputs, weights = plain
    config = SparsityConfig.with_target_sparsity(0.875)
    whole = calibrate(inputs, weights, config, activation="relu", rank=8)

    def batches():
        for start in range(0, len(inputs), 90):
            yield jnp.asarray(inputs[start : start + 90])

    streamed = calibrate(batches(), weights, config, activation="relu", rank=8)
    assert streamed.samples == whole.samples == len(inputs)
    scores = [found.predictor.scores(jnp.asarray(inputs)) for found in (whole, streamed)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert streamed.sparsity.threshold == pytest.approx(whole.sparsity.threshold, abs=1e-4)
    share = float((scores[0] > whole.sparsity.threshold).mean())
    assert share == pytest.approx(0.125, abs=1e-4)
    assert whole.sparsity.target_sparsity == 0.875 and whole.sparsity.adaptive_threshold


def test_kept_rows_are_few_and_fair(plain):
    inputs, weights = plain
    config = SparsityConfig.with_target_sparsity(0.875)
    ordered = inputs[np.argsort(inputs[:, 0])]
    found = calibrate(ordered, weights, config, activation="relu", rank=8, kept_rows=100)
    share = float((found.predictor.scores(jnp.asarray(inputs)) > found.sparsity.threshold).mean())
    assert share == pytest.approx(0.125, abs=0.03)


def test_it_beats_the_weights_alone(plain):
    inputs, weights = plain
    found = calibrate(inputs[:SEEN], weights, TOP, activation="relu", rank=6)
    left, sizes, right = np.linalg.svd(np.asarray(weights.w_in), full_matrices=False)
    bare = LowRankPredictor(right[:6], left[:, :6] * sizes[:6], weights.b_in)
    measured = predictor_statistics(inputs[SEEN:], bare, weights, TOP, activation="relu")
    assert recall(found, inputs[SEEN:], weights) > measured.recall + 0.2
    assert recall(found, inputs[SEEN:], weights) > 0.85


def test_by_contribution_keeps_more_of_the_output(plain):
    inputs, weights = plain
    norms = np.linspace(0.1, 3, F, dtype=np.float32)[:, None]
    uneven = weights._replace(w_out=weights.w_out * norms)
    errors = []
    for by in ("activation", "contribution"):
        found = calibrate(inputs[:SEEN], uneven, TOP, activation="relu", rank=6, by=by)
        measured = predictor_statistics(inputs[SEEN:], found.predictor, uneven, TOP, activation="relu")
        errors.append(measured.output_error)
    assert errors[1] < 0.8 * errors[0]


def test_recall_is_what_the_threshold_is_fitted_to(plain):
    inputs, weights = plain
    for config in (SparsityConfig.with_threshold(0.0), TOP, SparsityConfig.with_target_sparsity(0.875)):
        found = calibrate(inputs, weights, config, activation="relu", rank=6, target_recall=0.9)
        mask = np.asarray(found.predictor.scores(jnp.asarray(inputs))) > found.sparsity.threshold
        size = np.asarray(strengths(jnp.asarray(inputs), weights, activation="relu"))
        wanted = size > 0
        if config.threshold is None:
            wanted = np.argsort(np.argsort(-size, axis=1), axis=1) < 12
        assert (mask & wanted).sum() / wanted.sum() == pytest.approx(0.9, abs=2e-3)


def test_gates_get_a_quantile(gated):
    inputs, weights = gated
    config = SparsityConfig.with_target_sparsity(0.5)
    found = calibrate(inputs, weights, config, activation="swiglu", kind="gate")
    assert isinstance(found.predictor, GateThreshold)
    gates = np.asarray(found.predictor.scores(jnp.asarray(inputs)))
    assert (gates > found.sparsity.threshold).mean() == pytest.approx(0.5, abs=1e-3)


def test_strengths_of_a_gated_ffn_and_training(gated):
    inputs, weights = gated
    seen, test = inputs[:SEEN], inputs[SEEN:]

    def by_contribution(**options):
        found = calibrate(seen, weights, TOP, activation="swiglu", **options)
        measured = predictor_statistics(test, found.predictor, weights, TOP, activation="swiglu")
        return measured.recall_by_contribution, found

    linear, _ = by_contribution(rank=8)
    tuned, found = by_contribution(rank=8, fine_tune=80)
    network, of_network = by_contribution(rank=32, kind="mlp", fine_tune=200)
    assert found.tuned.recall_after > found.tuned.recall_before
    assert isinstance(of_network.predictor, MLPPredictor) and of_network.predictor.fc1.shape == (32, D)
    assert len(of_network.tuned.losses) == 200
    assert 0.3 < linear < tuned < network


def test_sums_of_gates_may_be_fitted(gated):
    inputs, weights = gated
    found = calibrate(inputs, weights, TOP, activation="reglu", rank=20, target="sums", by="activation")
    gates = inputs @ np.asarray(weights.w_gate).T + np.asarray(weights.b_gate)
    error = np.asarray(found.predictor.scores(jnp.asarray(inputs))) - gates
    assert np.sqrt((error**2).mean()) < 0.1


def test_an_even_activation_is_fitted_by_strength(plain):
    inputs, weights = plain
    found = calibrate(inputs, weights, TOP, activation="tanh", rank=8)
    expected = fit_low_rank(
        inputs, np.asarray(strengths(jnp.asarray(inputs), weights, activation="tanh")), rank=8
    )
    x = jnp.asarray(inputs[:50])
    np.testing.assert_allclose(found.predictor.scores(x), expected.scores(x), atol=1e-3)
    best = predictor_statistics(inputs, Oracle(weights, activation="tanh"), weights, TOP, activation="tanh")
    assert best.recall_by_contribution == 1.0


def test_what_is_refused(plain, gated):
    inputs, weights = plain
    for samples, options, message in (
        ([], {}, "there are no samples"),
        (np.empty((0, D)), {}, "there are no samples"),
        (inputs[:, :7], {}, r"\(\.\.\., 24\) is needed"),
        (np.where(np.arange(D) == 3, np.nan, inputs), {}, "samples hold NaN"),
        (inputs, {"rank": 0}, "rank must be 1 to 24"),
        (inputs, {"rank": D + 1}, "rank must be 1 to 24"),
        (inputs, {"rank": 1, "kind": "mlp"}, "must be 2 to 48"),
        (inputs, {"kind": "svd"}, "no kind 'svd'"),
        (inputs, {"by": "size"}, "no strength 'size'"),
        (inputs, {"target": "outputs"}, "no target 'outputs'"),
        (inputs, {"formula": "mine"}, "no formula 'mine'"),
        (inputs, {"ridge": 0}, "ridge must be above 0"),
        (inputs, {"fine_tune": -1}, "fine_tune must be"),
        (inputs, {"target_recall": 0}, "target_recall must be above 0"),
        (inputs, {"kept_rows": 1}, "kept_rows must be"),
        (inputs, {"kind": "gate", "lag": 1}, "cannot be trained or look ahead"),
        (inputs, {"sparsity": SparsityConfig.with_top_k(F + 1)}, "more than the 96 neurons"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(samples, weights, **{"activation": "relu", **options})
    with pytest.raises(ValueError, match="no activation 'gelus'"):
        calibrate(inputs, weights, activation="gelus")
    for config in (weights, gated[1]):
        with pytest.raises(ValueError, match="never 0"):
            Calibrator(config, SparsityConfig(), activation="silu", fine_tune=1)
    with pytest.raises(ValueError, match="700 samples do not go with 5"):
        fit_low_rank(inputs, inputs[:5], rank=2)
    with pytest.raises(ValueError, match="there are no samples"):
        fit_low_rank([], rank=2)
    with pytest.raises(ValueError, match="tuples of two arrays"):
        fit_low_rank([inputs], rank=2)
