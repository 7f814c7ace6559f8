"""Temporal Eigenstate Networks beside torch: the same network as a loop or an FFT, and a Transformer.

``sparsejax bench ten`` runs this in child processes in which every contestant has the same number of
threads. Vocabulary 1,024, width 512, 4 layers, 64 eigenstates, batch 2, float32, no dropout.
"""

from __future__ import annotations

from typing import Any

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row
from sparsejax.bench.ten import gpu, length, memory, recall, recurrence, speed
from sparsejax.bench.ten import networks as nets

_GROUPS = {"recurrence": recurrence, "speed": speed, "length": length, "recall": recall}
"""Modules whose ``measure(sizes, machine, quick=...)`` gives rows, in the order of the table."""

_THREADS = 2


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each group in a child process of its own.

    Args:
      quick: small sizes and fewer repetitions: a test of the benchmark, not a measurement.
      checkpoint: not used: the networks are at their initial parameters.
      threads: not used: every contestant has the two threads that the targets are about.

    Returns:
      rows in the order of the table; those of a GPU only where jax finds one.
    """
    del checkpoint, threads
    rows: list[Row] = []
    threads = min(_THREADS, len(allowed_cores()))
    for group in _GROUPS:
        rows += run_pinned(__name__, {"group": group, "quick": quick}, threads)
    rows.append(_memory_row(quick=quick, threads=threads))
    return rows + run_pinned(gpu.__name__, {"quick": quick}, threads, platforms=None)


def measure(*, group: str, quick: bool, threads: int) -> list[Row]:
    """One group of `run` in this process, whose threads the caller has limited."""
    sizes, rows = nets.QUICK if quick else nets.Sizes(), []
    for row in _GROUPS[group].measure(sizes, Machine.describe(threads), quick=quick):
        tell(row)
        rows.append(row)
    return rows


def _memory_row(*, quick: bool, threads: int) -> Row:
    short, longest = (
        run_pinned(memory.__name__, {"longest": longest, "quick": quick}, threads)[0]
        for longest in (False, True)
    )
    row = memory.compare(short, longest, nets.QUICK if quick else nets.Sizes())
    tell(row)
    return row
