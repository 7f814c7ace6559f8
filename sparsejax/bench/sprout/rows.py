"""Feed-forward parts that compute some neurons per token, beside dense ones; training and quality with them.

``sparsejax bench sprout`` runs this in child processes in which every contestant has the same number of
threads. Width 512, 2,048 neurons, float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from sparsejax.bench.given import networks_with_text
from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row
from sparsejax.bench.sprout import gpu, quality, speed, training
from sparsejax.bench.sprout import layers as ffn

_THREADS = 2


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each group in a child process of its own.

    Args:
      quick: small sizes and fewer repetitions: a test of the benchmark, not a measurement.
      checkpoint: a trained network for the rows about quality; the shipped one if not given.
      threads: not used: every contestant has the two threads that the targets are about.

    Returns:
      rows in the order of the table; those of a GPU only where jax finds one.
    """
    del threads
    threads, rows = min(_THREADS, len(allowed_cores())), []
    for group in _GROUPS:
        options = {"group": group, "quick": quick, "checkpoint": checkpoint and str(checkpoint)}
        rows += run_pinned(__name__, options, threads, inline=group == "speed")
    return rows + run_pinned(gpu.__name__, {"quick": quick}, threads, platforms=None)


def measure(*, group: str, quick: bool, threads: int, checkpoint: str | None = None) -> list[Row]:
    """One group of `run` in this process, whose threads the caller has limited."""
    rows = []
    for row in _GROUPS[group](Machine.describe(threads), quick, checkpoint):
        tell(row)
        rows.append(row)
    return rows


def _speed(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    sizes, plan = (ffn.QUICK, speed.QUICK_PLAN) if quick else (ffn.Sizes(), speed.PLAN)
    return speed.measure(sizes, plan, machine, quick=quick)


def _training(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    sizes = training.QUICK if quick else training.SIZES
    return training.measure(sizes, machine, quick=quick)


def _quality(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    files = networks_with_text("sprout*.pt", checkpoint)
    if not files:
        print("no trained network with held-out text is there: no rows about quality", file=sys.stderr)
    for path in files:
        yield from quality.measure(quality.HeldOut.of_file(path, quick=quick), machine)


_GROUPS: dict[str, Callable[[Machine, bool, str | None], Iterator[Row]]] = {
    "speed": _speed,
    "training": _training,
    "quality": _quality,
}
"""In the order of the table."""
