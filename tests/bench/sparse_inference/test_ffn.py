"""Rows of sparse feed-forward parts: the errors and the recall beside the times are right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.sparse_inference.ffn import Way, measure_prefill, measure_tokens
from sparsejax.bench.sparse_inference.layers import GATED, LARGE, PREFILL, QUICK, SMALL, Layers

MACHINE = Machine("cpu", 2, {}, 5.0, 1.0, 20.0, 60.0)


@pytest.mark.parametrize("sizes", [LARGE, GATED, SMALL, PREFILL], ids=str)
def test_a_gibibyte_of_weights_rotates(sizes):
    matrices = 3 if sizes.gated else 2
    assert sizes.layers * matrices * sizes.d_ff * sizes.d_model * 4 >= 1 << 30


def test_rows_of_single_tokens():
    sizes = dataclasses.replace(QUICK, gated=True)
    ways = (Way("neurons given", 0.1, False), Way("predictor included", 0.1, True, 3.0))
    given, predicted = measure_tokens(sizes, ways, MACHINE, quick=True)
    for row in (given, predicted):
        assert row.ours > 0 and row.peers["dense JAX"] > 0 and row.peers["dense NumPy"] > 0
        errors = row.quality["error to float64, of the same choice"]
        assert errors.keys() == {"ours", *(name for name, time in row.peers.items() if time is not None)}
        assert max(errors.values()) < 1e-5
    assert float(given.quality["relative output error"]) < float(predicted.quality["relative output error"])
    assert given.quality["recall of the active"].startswith("1.000")
    assert float(predicted.quality["recall of the active"].split()[0]) > 0.7
    assert predicted.targets[0].at_least == 3.0 and not given.targets


def test_rows_of_prefill():
    (row,) = measure_prefill(QUICK, MACHINE, tokens=24, rank=4, quick=True)
    errors = row.quality["relative output error"]
    assert 0 < errors["with compensation"] < errors["without"] < 1
    assert row.variants["without compensation"] > 0
    assert 0 < max(row.quality["that of dense"].values()) < 1e-5


def test_the_active_part_is_about_the_stated_one():
    layers = Layers(QUICK, 0.1)
    active = np.mean([(layers.hidden(n, m) > 0).mean() for n in range(2) for m in range(7)])
    assert 0.05 < active < 0.2
