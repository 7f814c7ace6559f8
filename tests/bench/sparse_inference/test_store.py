"""Rows of the store: every way gives the peer's outputs, and says what it moved."""

from __future__ import annotations

import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.sparse_inference import store as bench
from sparsejax.bench.timing import race

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)
WAYS = [way for way in bench.WAYS if way.strategy in ("lru", "none") and way.source != "bus"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    def short(calls, **_):
        return race(calls, repetitions=3, repetition_seconds=1e-5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "race", short)
        patch.setattr(bench, "WAYS", WAYS)
        folder = tmp_path_factory.mktemp("store")
        return list(bench.measure(bench.QUICK, MACHINE, folder, quick=True))


def test_every_way_gives_the_outputs_of_all_neurons_on_the_device(rows):
    assert len(rows) == len(WAYS)
    for way, row in zip(WAYS, rows, strict=True):
        assert way.words in row.case
        assert row.unit == "ms"
        assert min(row.ours, *row.peers.values()) > 0
        difference = row.quality["max difference to all on the device, in standard deviations"]["ours"]
        assert difference < 1e-5


def test_a_budget_is_a_fifth_and_prefetching_helps_the_hits(rows):
    by_words = {way.words: row for way, row in zip(WAYS, rows, strict=True)}

    def hits(words):
        return float(by_words[words].quality["hit rate"].rstrip("%"))

    for way in WAYS:
        share = "all" if way.everything else "20%"
        assert f"; {share} on the device" in by_words[way.words].case
    assert hits("no cache") == 0
    assert hits("LRU") > 50
    assert hits("no cache, prefetching") > 20
    assert "of what was prefetched, used" in by_words["LRU, from a file, prefetching"].quality


def test_a_bus_takes_its_time():
    made = bench.stack(bench.QUICK)
    units = bench.BusUnits(made.layers, 1e-3)
    nbytes = 10 * units.layouts[0].unit_bytes
    planes = units.layouts[0].planes
    into = [bench.np.empty((10, *plane.shape), plane.dtype) for plane in planes]
    start = bench.time.perf_counter()
    units.read(0, bench.np.arange(10), into)
    assert bench.time.perf_counter() - start >= 0.99 * nbytes / 1e6
    assert bench.np.array_equal(into[0][:, 0], made.layers[0].w_in[:10])
