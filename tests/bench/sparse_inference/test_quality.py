"""Rows about quality: rises of the perplexity, and targets as agreed."""

from __future__ import annotations

import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.sparse_inference.quality import Measured, rows_of
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.training.recipes.llama.quality import FRACTIONS

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)


def measured(activation):
    config = LlamaConfig(
        vocab_size=9, d_model=8, d_ff=16, n_layers=2, n_heads=2, activation=activation, tied_output=True
    )
    worth = {"predictor": 0.02, "oracle": 0.01, "random": 1.0}
    curves = {
        way: {fraction: 20 * (1 + rise * (1 / fraction - 1)) for fraction in FRACTIONS}
        for way, rise in worth.items()
    }
    return Measured(f"{activation}.gguf", config, curves, 512, 4)


def test_rows_are_rises_and_only_reglu_has_a_target():
    rows = list(rows_of(measured("relu"), MACHINE))
    assert [row.case for row in rows][2] == "relu.gguf: rise of the perplexity, 25% of the neurons"
    assert rows[2].ours == pytest.approx(6.0)
    assert rows[2].quality["oracle"] == "3.00 %"
    assert rows[2].quality["perplexity"] == "21.200, with all 20.000"
    assert [target.at_most for row in rows for target in row.targets] == [3.0]
    assert not any(row.targets for row in rows_of(measured("silu"), MACHINE))
