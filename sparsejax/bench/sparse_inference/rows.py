"""FFNs that compute the neurons a predictor names, quantised weights, the store and what sparsity costs.

``sparsejax bench sparse_inference`` runs this in child processes in which every contestant has the same
number of threads. One token, 4,096 x 11,008, float32, where a row says nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row
from sparsejax.bench.sparse_inference import batches, calibration, decode, ffn, gpu, quality, quantized, store

_THREADS = 2


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each group in a child process of its own.

    Args:
      quick: small sizes and fewer repetitions: a test of the benchmark, not a measurement.
      checkpoint: a trained Llama for the rows about quality; the shipped ones if not given.
      threads: not used: every contestant has the two threads that the targets are about.

    Returns:
      rows in the order of the table; those of a GPU only where jax finds one.
    """
    del threads
    threads, rows = min(_THREADS, len(allowed_cores())), []
    for module, groups in ((ffn, ffn.GROUPS), (batches, batches.GROUPS)):
        for group in groups:
            rows += run_pinned(module.__name__, {"group": group, "quick": quick}, threads, inline=True)
    for group in _GROUPS:
        options = {"group": group, "quick": quick, "checkpoint": checkpoint and str(checkpoint)}
        rows += run_pinned(__name__, options, threads)
    return rows + run_pinned(gpu.__name__, {"quick": quick}, threads, platforms=None)


def measure(*, group: str, quick: bool, threads: int, checkpoint: str | None = None) -> list[Row]:
    """One group of `run` in this process, whose threads the caller has limited."""
    rows = []
    for row in _GROUPS[group](Machine.describe(threads), quick, checkpoint):
        tell(row)
        rows.append(row)
    return rows


def _quantized(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    return quantized.measure(quantized.QUICK if quick else quantized.Sizes(), machine, quick=quick)


def _calibration(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    return calibration.measure(calibration.QUICK if quick else calibration.Sizes(), machine, quick=quick)


def _store(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    with tempfile.TemporaryDirectory() as folder:
        yield from store.measure(store.QUICK if quick else store.Sizes(), machine, Path(folder), quick=quick)


def _decode(machine: Machine, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    del checkpoint
    with tempfile.TemporaryDirectory() as folder:
        yield from decode.measure(machine, Path(folder), quick=quick)


_GROUPS: dict[str, Callable[[Machine, bool, str | None], Iterator[Row]]] = {
    "quantized": _quantized,
    "decode": _decode,
    "calibration": _calibration,
    "store": _store,
    "quality": quality.measure,
}
"""In the order of the table, after those of `sparse_inference_ffn` and `sparse_inference_batches`."""
