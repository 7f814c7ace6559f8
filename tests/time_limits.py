"""Limits of CPU time in tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TRACED = 5  # lines take so many times as long, or less, while something counts them


@contextmanager
def cpu_seconds(limit: float) -> Iterator[None]:
    """Fail if the block takes more, or five times as much under a tracer, as `make coverage` has one."""
    start = time.process_time()
    yield
    taken = time.process_time() - start
    allowed = limit * (1 if sys.gettrace() is None else _TRACED)
    assert taken < allowed, f"{taken:.1f} s of CPU time, where {allowed:.1f} s are allowed"
