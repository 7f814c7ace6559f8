"""Rows of small batches and of the limits: what is timed is what `chosen` says."""

from __future__ import annotations

import dataclasses

from sparsejax.bench.machine import Machine
from sparsejax.bench.sparse_inference.batches import _ACTIVE, BATCHES, GROUPS, measure_sizes
from sparsejax.bench.sparse_inference.layers import QUICK
from sparsejax.models.sparse_inference.ffn.crossover import choose_path

MACHINE = Machine("cpu", 2, {}, 5.0, 1.0, 20.0, 60.0)


def test_rows_of_batches_and_limits():
    two, four, one, many = measure_sizes(dataclasses.replace(QUICK, quantises=False), MACHINE, quick=True)
    assert [row.case.split(",")[0] for row in (two, four, one, many)] == [
        "2 tokens",
        "4 tokens",
        "crossover at 1 token",
        "crossover at 32 tokens",
    ]
    for row in (two, four, one, many):
        errors = row.quality["error to float64, of the same choice"]
        assert errors.keys() == {"ours", *(name for name, time in row.peers.items() if time is not None)}
        assert max(errors.values()) < 1e-5
        assert row.ours > 0 and row.peers["dense JAX"] > 0
        assert bool(row.targets) == (row is two or row is four)
    assert two.variants.keys() == {"union", "masked"}
    assert float(two.quality["recall of the active"].split()[0]) > 0.3


def test_small_batches_read_rows_in_what_is_measured():
    assert all(choose_path(tokens, _ACTIVE) == "rows" for tokens in BATCHES) and len(GROUPS) == 2
