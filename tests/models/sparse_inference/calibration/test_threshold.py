"""Thresholds: the share that exceeds them, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.threshold import threshold_of_fraction, threshold_of_recall

SCORES = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)


@pytest.mark.parametrize("fraction", [0, 1 / 1200, 0.1, 0.5, 1 - 1 / 1200, 1])
def test_a_share_of_all(fraction):
    above = (SCORES > threshold_of_fraction(SCORES, fraction)).sum()
    assert above == round(1200 * fraction)


@pytest.mark.parametrize("recall", [0.01, 0.1, 0.5, 0.95, 1])
def test_a_share_of_the_wanted(recall):
    wanted = SCORES + np.random.default_rng(1).normal(size=SCORES.shape) > 1
    found = (SCORES > (threshold := threshold_of_recall(SCORES, wanted, recall)))[wanted]
    assert found.mean() >= recall > found.mean() - 1 / wanted.sum()
    higher = SCORES > np.nextafter(np.float32(threshold), np.float32(np.inf))
    assert higher[wanted].mean() <= found.mean()


def test_what_is_refused():
    for make, message in (
        (lambda: threshold_of_fraction(SCORES, 1.1), "0 to 1, not 1.1"),
        (lambda: threshold_of_fraction([], 0.5), "no scores"),
        (lambda: threshold_of_fraction([1.0, np.nan], 0.5), "hold NaN"),
        (lambda: threshold_of_recall(SCORES, SCORES > 0, -0.1), "0 to 1"),
        (lambda: threshold_of_recall(SCORES, SCORES > 9, 0.5), "no neuron is wanted"),
        (lambda: threshold_of_recall(SCORES, [True], 0.5), "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
