"""Keeps cores awake while microseconds are measured.

A core that has nothing to do sleeps, and waking one of a virtual machine takes up to 100 us. Libraries whose
threads spin between two calls keep it awake by themselves, others find it asleep at each loop of some
microseconds: what is timed then is the machine. So each core gets a process that computes nothing, and only
while nobody else wants the core: the idle priority of Linux, which gives way at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_SPIN = """
import os, sys
core, parent = map(int, sys.argv[1:])
os.sched_setaffinity(0, [core])
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextmanager
def awake(cores: Sequence[int]) -> Iterator[None]:
    """Keep these cores from sleeping; does nothing on systems that have no idle priority.

    Args:
      cores: numbers of the machine's cores.

    Example:
      >>> with awake([]):
      ...     pass
    """
    if not hasattr(os, "SCHED_IDLE"):
        yield
        return
    command = [sys.executable, "-S", "-c", _SPIN]
    spinning = [subprocess.Popen([*command, str(core), str(os.getpid())]) for core in cores]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
