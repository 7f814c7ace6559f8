"""Processes that keep cores awake: there meanwhile, of idle priority, and gone afterwards."""

import os
import time

import pytest

from sparsejax.bench.awake import awake

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the idle priority is Linux's")


def _children():
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return {int(number) for number in listed.read().split()}


def _idle_on(core):
    """The new children that run there with idle priority; they set both themselves, so wait for it."""
    return {
        child
        for child in _children()
        if os.sched_getscheduler(child) == os.SCHED_IDLE and os.sched_getaffinity(child) == {core}
    }


def test_a_core_has_one_process_of_idle_priority_for_as_long_as_asked():
    core = min(os.sched_getaffinity(0))
    with awake([core]):
        patience = time.monotonic() + 30
        while not _idle_on(core) and time.monotonic() < patience:
            time.sleep(0.01)
        assert len(_idle_on(core)) == 1
    assert not _idle_on(core)


def test_they_are_gone_after_an_error_too():
    before = _children()
    with pytest.raises(RuntimeError, match="mine"), awake(sorted(os.sched_getaffinity(0))):
        raise RuntimeError("mine")
    assert _children() == before
