"""Long runs that watch the memory of their own process: ``make soak``.

::

  python -m tests.soak --minutes 5           half of it each
  python -m tests.soak --minutes 60 --run nve

NVE: a molecule by the shipped force field in one call of `md.nve`, with a trajectory on the disk and the
state saved on the way. Training: a small Temporal Eigenstate Network on random bytes, with metrics and saved
states. Both save as often as the command line does, short runs more often. What is told: resident memory at
the end of the first third and at the end, its growth, and whether the run itself stayed sound: the drift of
the energy, the loss.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import sparsejax as sj

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "ultra_tiny_gfn2.pt"
MIB = 1 << 20
MINUTE = 60.0
FEWEST = 12
"""Samples; a busy machine takes longer than it was told rather than fewer."""
VOCABULARY, LENGTH, ROWS = 64, 32, 8


class Sample(NamedTuple):
    """Resident memory at a time: seconds since the first sample, MiB."""

    seconds: float
    mib: float


class Soaked(NamedTuple):
    """What a run gave.

    Attributes:
      steps: done.
      samples: in their order.
      told: what says that the run itself is sound, by name.
    """

    steps: int
    samples: list[Sample]
    told: dict[str, float]


class TimeIsUp(Exception):
    """Ends a run from within its callback."""


class Watch:
    """Takes some 1,000 samples; `look` raises `TimeIsUp` when the seconds of the run are over."""

    def __init__(self, seconds: float):
        self.samples: list[Sample] = []
        self._seconds, self._start = seconds, 0.0

    def look(self) -> bool:
        """Takes a sample if it is time; whether it did."""
        if not self._start:
            gc.freeze()  # what was there before is not looked through each time
            self._start = time.monotonic()
        now = time.monotonic() - self._start
        if self.samples and now < self.samples[-1].seconds + self._seconds / 1000:
            return False
        gc.collect()  # what is only waiting to be collected is no leak
        self.samples.append(Sample(now, resident_mib()))
        if now > self._seconds and len(self.samples) >= FEWEST:
            gc.unfreeze()
            raise TimeIsUp
        return True


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def growth(samples: list[Sample]) -> float:
    """MiB that the last third of the samples holds more than the middle third, by their medians.

    The first third is that of caches and of the allocator's pools, which fill up and stay.
    """
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return float(np.median([mib for _, mib in last]) - np.median([mib for _, mib in middle]))


def soak_nve(seconds: float, folder: Path, *, replicas: int = 4) -> Soaked:
    """Constant energy, 0.5 fs a step."""
    from ase.build import molecule

    from sparsejax.models.force_field import ForceField, md

    field = ForceField.from_checkpoint(sj.load(CHECKPOINT))
    ethanol = molecule("CH3CH2OH")
    watch, parts = Watch(seconds), []

    def progress(step: int, records: Any) -> None:
        if watch.look() and len(records["conserved"]):
            parts.append((step, np.array(records["conserved"][-1])))  # a view would keep all records

    often = 1000 if seconds < MINUTE else 10_000
    files = {"trajectory": folder / "run.traj", "restart": folder / "state", "save_every": often}
    options = {"temperature": 150.0, "replicas": replicas, "every": 100, "call_steps": 200}
    try:
        md.nve(field, ethanol, steps=10**9, progress=progress, **options, **files)
    except TimeIsUp:
        pass
    steps = np.array([step for step, _ in parts])
    energies = np.stack([energies for _, energies in parts])
    picoseconds = steps * 0.5e-3
    slopes = np.polyfit(picoseconds, energies.reshape(len(steps), -1), 1)[0]
    told = {
        "picoseconds": float(picoseconds[-1]),
        "largest drift, meV/atom/ps": float(1000 * np.abs(slopes).max() / len(ethanol)),
        "largest excursion, meV/atom": float(1000 * np.abs(energies - energies[0]).max() / len(ethanol)),
    }
    return Soaked(int(steps[-1]), watch.samples, told)


def soak_training(seconds: float, folder: Path, *, leak: Callable[[], object] = lambda: None) -> Soaked:
    """Steps of AdamW on other random bytes each time; ``leak`` is called once per call of the loop."""
    import optax

    from sparsejax.models.ten import TemporalEigenstateConfig, TemporalEigenstateNetwork
    from sparsejax.training.gradient_step import compiled_steps, gradient_step, start_state
    from sparsejax.training.loop import run_rounds
    from sparsejax.training.metric_log import MetricLog
    from sparsejax.training.recipes.ten.parts import next_token_loss
    from sparsejax.training.state import save_state

    config = TemporalEigenstateConfig(vocab_size=VOCABULARY, dim=32, n_layers=1, num_eigenstates=8)
    network, key = TemporalEigenstateNetwork(config), jax.random.key(0)
    params = jax.jit(network.init)(key, np.zeros((1, LENGTH), np.int32))["params"]
    optimizer = optax.adamw(1e-3)
    step = gradient_step(next_token_loss(config, dtype=None, train=True), optimizer)
    watch, first, late = Watch(seconds), [], deque(maxlen=50)
    steps, trained = compiled_steps(step, _batches()), 0
    with MetricLog(folder / "metrics.jsonl") as log:

        def record(done: int, records: Any) -> None:
            late.extend(map(float, records["loss"]))
            first[:] = first or [late[0]]
            log.append(done + 1, {"loss": late[-1]})
            leak()

        def look(done: int, _state: Any) -> bool:
            nonlocal trained
            trained = done
            try:
                watch.look()
            except TimeIsUp:
                return True
            return False

        run_rounds(
            start_state(key, params, optimizer),
            steps,
            start=0,
            stop=10**9,
            at_most=5,
            on_records=record,
            save=lambda done, state: save_state(folder / "state", state, rounds=done, seconds=0.0),
            save_seconds=0.5 if seconds < MINUTE else 15.0,
            on_states=look,
        )
    told = {"first loss": first[0], "last loss": float(np.mean(late))}
    return Soaked(trained, watch.samples, told)


def _batches() -> Iterator[dict[str, np.ndarray]]:
    """Rows of a repeated word each, so that there is something to learn."""
    for seed in itertools.count():
        words = np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, 8), dtype=np.int32)
        tokens = np.tile(words, LENGTH // 8 + 1)[:, : LENGTH + 1]
        yield {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}


RUNS = {"nve": soak_nve, "training": soak_training}


def report(name: str, found: Soaked) -> str:
    """One line."""
    end = found.samples[-1]
    first = next(sample for sample in found.samples if sample.seconds >= end.seconds / 3)
    told = ", ".join(f"{what} {value:.4g}" for what, value in found.told.items())
    per_hour = growth(found.samples) / (end.seconds / 3) * 3600
    return (
        f"{name}: {end.seconds:.0f} s, {found.steps} steps; resident {first.mib:.1f} MiB after a third, "
        f"{end.mib:.1f} at the end; growth {growth(found.samples):+.2f} MiB "
        f"({per_hour:+.0f} MiB/h); {told}"
    )


def main() -> int:
    """Runs what the command line says; 1 if a run holds 32 MiB more in its last third."""
    parser = argparse.ArgumentParser(description="Run for a while and watch the memory.")
    parser.add_argument("--run", choices=RUNS, help="both if not given")
    parser.add_argument("--minutes", type=float, default=5.0, help="in all (default 5)")
    given = parser.parse_args()
    names = [given.run] if given.run else list(RUNS)
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = RUNS[name](60 * given.minutes / len(names), Path(folder))
        print(report(name, found), flush=True)
        failed |= growth(found.samples) > 32
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
