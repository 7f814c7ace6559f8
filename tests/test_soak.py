"""Memory does not grow with the steps of dynamics and of training, and growth would be seen."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.soak import Sample, growth, resident_mib, soak_nve, soak_training

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory is read from /proc"
)

SECONDS = 3.0
BOUND = 16.0
"""MiB from the middle third of a run to its last."""


def test_growth_is_what_the_last_third_holds_more():
    flat = [Sample(second, 100.0 + 50 * (second < 5)) for second in range(31)]
    assert growth(flat) == 0  # what is given back, or filled once at the start, is no leak
    assert growth([Sample(second, 2.0 * second) for second in range(31)]) == pytest.approx(20, abs=1)


def test_resident_memory_is_measured():
    before = resident_mib()
    kept = np.ones(20 << 17)  # 20 MiB
    assert 15 < resident_mib() - before < 30
    del kept


def test_memory_is_stable_in_dynamics(tmp_path):
    pytest.importorskip("ase")
    found = soak_nve(SECONDS, tmp_path)
    assert growth(found.samples) < BOUND
    assert found.steps > 500 and len(found.samples) > 9
    assert found.told["largest excursion, meV/atom"] < 2


def test_memory_is_stable_in_training(tmp_path):
    found = soak_training(SECONDS, tmp_path)
    assert growth(found.samples) < BOUND
    assert found.steps > 60 and found.told["last loss"] < found.told["first loss"]


def test_a_leak_is_found(tmp_path):
    """A training loop that keeps 8 MiB after every call."""
    kept = []
    found = soak_training(SECONDS, tmp_path, leak=lambda: kept.append(np.ones(8 << 17)))
    assert kept and growth(found.samples) > BOUND
