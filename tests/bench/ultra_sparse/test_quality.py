"""Rows about quality: which of the peers' runs they tell."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax.bench.ultra_sparse import quality


def test_the_annealers_best_run_is_chosen_in_training(monkeypatch):
    """Runs whose outputs are their seeds: the errors grow with them, those of training fall."""
    split = SimpleNamespace(features=np.zeros((3, 2)), targets=np.zeros((3, 1)))
    runs = {seed: SimpleNamespace(net=seed, mse=-seed) for seed in range(quality.SINE_SEEDS)}
    monkeypatch.setattr(quality.annealer, "numpy_anneal", lambda features, goal, steps, seed: runs[seed])
    monkeypatch.setattr(quality.numpy_net, "sparse_rows_plain", lambda net: lambda x: np.full((3, 1), net))
    peers = quality.annealed_peers(SimpleNamespace(train=split, test=split), 1)
    assert list(peers.values()) == pytest.approx([np.median(np.arange(20) ** 2), 19**2])
