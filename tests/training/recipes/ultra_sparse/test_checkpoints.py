"""The recipe of the shipped checkpoints, at a small size."""

from __future__ import annotations

import json

import numpy as np

import sparsejax as sj
from sparsejax.training.recipes.ultra_sparse.checkpoints import make_checkpoints


def test_checkpoints_are_written_with_their_outputs_and_errors(tmp_path):
    make_checkpoints(tmp_path, chains=2, steps=400, epochs=60)
    entries = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert [entry["variant"] for entry in entries] == ["sparse", "dense", "sparse", "library"]
    for entry in entries:
        with np.load(tmp_path / entry["expected"]) as expected:
            features = sj.models.ultra_sparse.expand_input(expected["x"])
            outputs = sj.load(tmp_path / entry["file"]).apply(features)
            np.testing.assert_allclose(np.ravel(outputs), np.ravel(expected["outputs"]), atol=3e-5)
            error = np.mean((np.ravel(expected["outputs"]) - np.sin(expected["x"])) ** 2)
        np.testing.assert_allclose(entry["mse"], error, rtol=1e-4)
        assert entry["mse"] < 0.495  # that of predicting zero
        assert entry["command"] == "python -m sparsejax.training.recipes.ultra_sparse.checkpoints checkpoints"
