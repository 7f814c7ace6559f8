"""The rows of sparse inference: errors to float64, and what is aimed at."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.ggml_matrix import GgmlMatrix
from sparsejax.bench.report import Target
from sparsejax.bench.sparse_inference import calibration, quantized
from sparsejax.bench.sparse_inference import decode as whole
from sparsejax.bench.sparse_inference import gpu as sparse_inference_gpu
from sparsejax.bench.sparse_inference import rows as sparse_inference
from sparsejax.ops.quantized import FORMATS, decode, encode

MACHINE = Machine("cpu", 2, {}, 6.0, 3.0, 10.0, 20.0)
SMALL = dataclasses.replace(quantized.QUICK, d_model=64, d_ff=128, rotation=1 << 16)


def test_rates_are_those_of_exact_products():
    row = quantized.dense_row("q8_0", SMALL, MACHINE, quick=True)
    (errors, _) = row.quality.values()
    assert errors["ours"] < 1e-6
    assert max(error for name, error in errors.items() if name.startswith("float32")) < 1e-6
    assert row.targets == (Target("float32", at_least=0.6),)
    assert row.unit == "GB/s" and row.ours > 0


def test_some_neurons_are_compared_with_all():
    row = quantized.sparse_row("q4_0", dataclasses.replace(SMALL, active=0.25), MACHINE, quick=True)
    (errors,) = row.quality.values()
    assert errors.keys() == {"ours", "all neurons"}
    assert max(errors.values()) < 1e-5
    assert row.targets == (Target("all neurons", at_least=3.0),)
    assert "25.0 % of the neurons" in row.case


def test_calibration_finds_what_matters():
    (row,) = calibration.measure(calibration.QUICK, MACHINE, quick=True)
    assert row.quality["recall of a tenth"] > 0.7
    assert row.unit == "s" and row.ours > 0


def test_rows_of_a_gpu_compare_with_dense_products():
    sizes = dataclasses.replace(sparse_inference_gpu.QUICK[0])
    rows = list(sparse_inference_gpu.rows_of(sizes, MACHINE, quick=True))
    assert [row.case.split(",")[0] for row in rows] == ["bfloat16", "q4_0"]
    assert all(row.targets == (Target("dense, bfloat16", at_least=4.0),) for row in rows)
    errors = [row.quality["largest error over largest output"] for row in rows]
    assert 0 < errors[1]["ours"] < 1e-5 < max(errors[0].values()) < 2e-2
    assert [row.case.split(", ")[2] for row in rows] == ["10.2 % of the neurons", "12.5 % of the neurons"]


def test_without_a_gpu_there_are_no_rows_of_one():
    assert sparse_inference_gpu.measure(quick=True, threads=2) == []


def test_every_group_is_run(monkeypatch):
    asked = []
    monkeypatch.setattr(
        sparse_inference, "run_pinned", lambda name, options, *_, **__: asked.append((name, options)) or []
    )
    assert sparse_inference.run(quick=True) == []
    groups = [options.get("group") for _, options in asked]
    ffn = ["large", "gated", "small", "prefill", "batches", "batches small"]
    assert groups == [*ffn, "quantized", "decode", "calibration", "store", "quality", None]


def test_whole_models_say_what_llama_cpp_says(tmp_path, monkeypatch):
    (row,) = whole.measure(MACHINE, tmp_path, quick=True)
    assert row.unit == "tokens/s" and row.ours > 0 and row.case.startswith("decode, tiny Llama, q8_0")
    if row.peers["llama.cpp"] is None:
        assert any("llama" in note for note in row.notes)
    else:
        assert row.quality["first tokens that are the same"] == "8 of 8"
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    alone = whole.decode_row("alone", tmp_path / "q8_0.gguf", 2, MACHINE, quick=True)
    assert alone.peers == {"llama.cpp": None} and "llama_cpp is not installed" in " ".join(alone.notes)


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("name", ["q8_0", "q4_0", "q4_k", "q6_k"])
def test_ggml_multiplies_the_same_matrix(name):
    draws = np.random.default_rng(0)
    weights, token = draws.normal(size=(64, 512)), draws.normal(size=512).astype(np.float32)
    raw = encode(weights, name)
    exact = decode(raw, name).reshape(64, 512).astype(np.float64) @ token
    matrix = GgmlMatrix(raw, FORMATS[name].type_id, (64, 512), threads=1)
    for _ in range(3):
        assert np.abs(matrix(token) - exact).max() < 0.02 * np.abs(exact).max()  # its tokens have 8 bits
