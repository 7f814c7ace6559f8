"""The rows of the eigenstate networks: right outputs, honest shares, targets as agreed, at tiny sizes."""

from __future__ import annotations

import importlib.util
import math
from functools import partial

import numpy as np
import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row
from sparsejax.bench.ten import length as ten_length
from sparsejax.bench.ten import memory as ten_memory
from sparsejax.bench.ten import networks as nets
from sparsejax.bench.ten import race as ten_race
from sparsejax.bench.ten import recurrence as ten_recurrence
from sparsejax.bench.ten import speed as ten_speed
from sparsejax.bench.timing import race

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)
TINY = nets.Sizes(16, 16, 1, 8, short=8, long=16, longer=32, longest=64, prefix=120)
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


@pytest.fixture(autouse=True)
def short_race(monkeypatch):
    def short(calls, **_):
        return race(calls, repetitions=3, repetition_seconds=1e-5)

    for module in (ten_race, ten_recurrence, ten_length):
        monkeypatch.setattr(module, "race", short)
    monkeypatch.setattr(nets, "product_rate", lambda threads: 1e11)
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)  # at these sizes a second one only waits


@needs_torch
def test_every_contestant_of_a_training_row_has_the_float64_gradient():
    row = ten_race.decide(ten_speed.training_race("fft", 8, TINY, MACHINE), MACHINE, quick=True)
    (errors,) = row.quality.values()
    assert errors.keys() == {"ours", *row.peers}
    # Some gradients are small differences of large sums: 2e-4 of the largest is what float32 leaves.
    assert max(errors.values()) < 2e-4
    assert row.unit == "ms" and row.ours > 0 and len(row.variants) == 1
    assert "torch loop" in row.hardest("torch loop") and row.ratio("torch loop") > 0


@needs_torch
def test_every_contestant_of_a_forward_row_has_the_float64_logits():
    contest = ten_speed.forward_race("long", TINY, MACHINE, quick=True)
    row = ten_race.decide(contest, MACHINE, quick=True)
    (errors,) = row.quality.values()
    assert errors.keys() == {"ours", *row.peers}
    assert max(errors.values()) < 1e-5
    assert row.first_call["ours"] > 10e-3 * row.ours  # compilation is part of it, seconds to milliseconds


def test_a_row_without_torch_still_has_our_time(monkeypatch):
    def missing(*_args, **_options):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(nets.peer, "tensors", missing)
    row = ten_race.decide(ten_speed.training_race("fft", 8, TINY, MACHINE), MACHINE, quick=True)
    assert row.ours > 0 and set(row.peers.values()) == {None} and row.quality == {}
    assert row.met(row.targets[0]) is None
    assert any("torch is not installed" in note for note in row.notes)


@pytest.mark.parametrize(("kind", "training"), [("fft", True), ("paper", False), ("diagonalised", False)])
def test_the_measured_recurrence_is_that_of_float64(kind, training):
    row = ten_recurrence.share_row(kind, 8, TINY, MACHINE, training=training, at_most=5.0, quick=True)
    assert row.best.keys() == {"ours"}
    assert row.quality["max error to float64"]["ours"] < 2e-6
    assert row.unit == "% of the layer" and math.isfinite(row.ours)
    assert row.targets[0].at_most == 5.0


def test_rows_over_lengths_compare_segments_with_one_pass():
    row = ten_length.time_row(TINY, MACHINE, quick=True)
    assert row.quality["two segments less one pass"]["ours"] < 1e-5
    assert row.unit == "x" and row.ours > 0 and row.targets[0].at_most == 1.25
    assert row.best.keys() == {"ours"}


def test_a_decoded_token_equals_that_of_the_whole():
    row = ten_length.decode_row(TINY, MACHINE, quick=True)
    assert row.quality["step less whole forward"]["ours"] < 1e-5
    assert row.unit == "x" and row.ours > 0 and row.targets[0].at_most == 1.1
    assert row.best.keys() == {"ours"}


def test_targets_are_those_agreed():
    shares = {(kind, training): limit for kind, training, limit in ten_recurrence._ROWS}
    assert shares == {
        ("fft", False): 5,
        ("fft", True): 5,
        ("paper", False): 25,
        ("paper", True): 25,
        ("seed", True): 25,
        ("diagonalised", False): 5,
    }
    assert [(target.peer, target.at_least) for target in ten_speed._LOOP] == [("torch loop", 2)]
    transformer = {at: (target.peer, target.at_least) for at, target in ten_speed._TRANSFORMER.items()}
    assert transformer == {"long": ("torch Transformer", 2), "longer": ("torch Transformer", 8)}
    sizes = nets.Sizes()
    assert (sizes.vocab_size, sizes.dim, sizes.n_layers, sizes.num_eigenstates) == (1024, 512, 4, 64)
    assert (sizes.short, sizes.long, sizes.longer, sizes.longest) == (1024, 4096, 32_768, 262_144)


def test_differences_are_relative_to_what_they_should_be():
    exact = np.array([4.0, -8.0]), {"a": {"b": np.array([1.0, 2.0])}, "c": np.array([1e-9])}
    found = np.array([4.0, -8.0]), {"a": {"b": np.array([1.0, 2.2])}, "c": np.array([1.5e-9])}
    assert ten_race.gradient_difference(found, exact) == pytest.approx(0.5)
    assert ten_race.largest_difference([4.0, -8.8], exact[0]) == pytest.approx(0.1)
    assert ten_race.largest_difference([0.5], [0.25]) == 0.25


def test_memory_per_token_is_compared_between_two_processes():
    def raw(ours, compiled):
        quality = {"compiled": compiled, "measured": True}
        return Row("x", "bytes/token", ours, {}, quality, "cpu (test)", 2, {})

    row = ten_memory.compare(raw(40_960, 30_720.0), raw(4096, 3072.0), nets.Sizes())
    assert row.ours == pytest.approx(0.1) and row.met(row.targets[0])
    assert row.quality["per token"] == "40.0 KiB, then 4.0 KiB"
    assert row.variants == {"by the compiler": pytest.approx(0.1)}


@pytest.mark.skipif(not ten_memory._RESET.exists(), reason="needs Linux's /proc")
def test_the_rise_of_the_peak_is_that_of_an_allocation():
    nbytes = 64 << 20
    risen = ten_memory.peak_rise(partial(np.ones, nbytes, np.uint8))
    assert risen is None or 0.9 * nbytes < risen < 1.2 * nbytes


def test_matrix_products_are_counted_by_hand():
    # Per token and layer: d*2k in, 2k*d out, d*d gate, 2*d*4d feed forward; the head; two per multiply-add.
    by_hand = 2 * ((16 * 16 + 16 * 16 + 16 * 16 + 8 * 16 * 16) + 16 * 16)
    assert nets.matrix_products(TINY, 3) == 3 * by_hand
    assert nets.matrix_products(TINY, 3, training=True) == 9 * by_hand
