"""Damaged HDF5 and JSON files are read or refused in one line; ``make fuzz`` does it for longer.

Torch and GGUF files have tests of their own beside their readers.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest

from tests import fuzz


@pytest.mark.parametrize(("kind", "cases"), [("hdf5", 300), ("json", 800)])
def test_damaged_files_are_read_or_refused(kind, cases):
    if kind == "hdf5":
        pytest.importorskip("h5py")
    found = fuzz.run(kind, seed=1, cases=cases)
    assert not found.failures, found.failures
    assert sum(found.counts.values()) == cases
    assert found.counts["read"] > cases / 10
    assert sum(found.counts.values()) - found.counts["read"] > cases / 4


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_crashes_hangs_and_wrong_errors_are_seen(monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 1.0)
    found = fuzz.run(fuzz.REHEARSAL, seed=0, cases=8)
    told = {failure.case: failure.text for failure in found.failures}
    assert told.keys() == {2, 4, 6}
    assert told[2] == "!IndexError: a wrong error"
    assert "SIGSEGV" in told[4]
    assert "no word for" in told[6]
    assert found.counts == {"read": 5, "!IndexError": 1, "!crash": 2}


def rehearse(rng: random.Random) -> str:
    """What the cases of the seed 0 do, by the first number that is drawn for each."""
    number = [random.Random(f"0 {case}").random() for case in range(8)].index(rng.random())
    if number == 2:
        raise IndexError("a wrong error")
    if number == 4:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 6:
        time.sleep(60)
    return "read"
