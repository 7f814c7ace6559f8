"""Scores that weigh every token alike."""

from __future__ import annotations

import math

import pytest

from sparsejax.training.cross_entropy import TokenLoss
from sparsejax.training.perplexity import Score, token_weighted_score


def test_long_batches_weigh_more():
    losses = [TokenLoss(8.0, 2.0), TokenLoss(6.0, 6.0)]
    score = token_weighted_score(losses.__getitem__, [0, 1])
    assert score == Score(14 / 8, 8)
    assert score.perplexity == pytest.approx(math.exp(14 / 8))


def test_nothing_counted_and_overflow():
    assert math.isnan(token_weighted_score(lambda batch: TokenLoss(0.0, 0.0), [0]).loss)
    assert Score(1e4, 1).perplexity == math.inf
