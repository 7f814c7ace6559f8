"""The message-passing force field beside torch: molecules, silicon, and molecular dynamics.

``sparsejax bench force_field`` runs this in child processes in which every contestant has the same number of
threads. Energies and forces in float32, inputs on the device, the same lists of neighbours on all sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sparsejax.bench.force_field import dynamics, gpu, speed, systems
from sparsejax.bench.force_field.systems import Network
from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row

_THREADS = 2


def run(quick: bool = False, *, checkpoint: Any = None, threads: int = 1) -> list[Row]:
    """All rows, each group in a child process of its own.

    Args:
      quick: small systems and fewer repetitions: a test of the benchmark, not a measurement.
      checkpoint: file of a trained network, or several; each takes the place of the random one of its size.
      threads: not used: every contestant has the two threads that the targets are about.

    Returns:
      rows in the order of the table; those of a GPU only where jax finds one.
    """
    del threads
    files = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint or ())
    threads, rows = min(_THREADS, len(allowed_cores())), []
    options = {"quick": quick, "checkpoints": [str(file) for file in files]}
    for group in _GROUPS:
        rows += run_pinned(__name__, {"group": group, **options}, threads)
    return rows + run_pinned(gpu.__name__, options, threads, platforms=None)


def measure(*, group: str, quick: bool, threads: int, checkpoints: Sequence[str] = ()) -> list[Row]:
    """One group of `run` in this process, whose threads the caller has limited."""
    networks, rows = systems.networks(checkpoints), []
    for row in _GROUPS[group](networks, Machine.describe(threads), quick):
        tell(row)
        rows.append(row)
    return rows


def _speed(networks: Sequence[Network], machine: Machine, quick: bool) -> Iterator[Row]:
    plan = speed.QUICK if quick else speed.Plan()
    return speed.measure(networks, plan, machine, quick=quick)


def _dynamics(networks: Sequence[Network], machine: Machine, quick: bool) -> Iterator[Row]:
    plan = dynamics.QUICK if quick else dynamics.Plan()
    return dynamics.measure(networks, plan, machine, quick=quick)


_GROUPS: dict[str, Callable[[Sequence[Network], Machine, bool], Iterator[Row]]] = {
    "speed": _speed,
    "dynamics": _dynamics,
}
"""In the order of the table."""
