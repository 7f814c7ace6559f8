"""The published commands that judged and timed a force field, doing what they say.

The published ``validate`` read a key that was not there, and the published ``benchmark`` asked ASE's cache
about atoms that never moved: it timed a dictionary (specs/force_field.md section 7).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.native.durable import replace_json
from sparsejax.models.force_field import ForceField, md
from sparsejax.models.force_field.nve_summary import RecordedRun, nve_summary
from sparsejax.training.recipes.force_field.checks_settings import BenchmarkSettings, ValidateSettings
from sparsejax.training.recipes.force_field.md import last_structure
from sparsejax.training.run_checks import check_output
from sparsejax.training.run_folder import best_of

MOLECULES = ("H2O", "CH4", "C2H6", "C6H6")
_MOVE = 1e-3  # A
_FEMTOSECONDS = 1e-3  # ps


def validate(settings: ValidateSettings) -> dict[str, Any]:
    """What ``sparsejax validate`` does.

    Returns:
      the summary of `nve_summary`, with what was run.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ValueError: the molecule or a setting does not fit, or the summary cannot lie where it shall.
      FloatingPointError: an energy is not finite.
      OSError: the summary cannot be written.
    """
    if settings.output is not None:
        check_output(settings.output, "--output")
    field, atoms = _field(settings.checkpoint), _molecule(settings.molecule)
    if settings.relax:
        atoms = md.minimize(field, atoms).atoms
    start = time.perf_counter()
    run = md.nve(
        field,
        atoms,
        steps=settings.steps,
        timestep=settings.timestep,
        temperature=settings.temperature,
        seed=settings.seed,
        every=1,
        observers={"positions": md.positions, "velocities": md.velocities, "forces": md.forces},
    )
    seconds = time.perf_counter() - start
    seen = {name: np.asarray(values[:, 0]) for name, values in run.observed.items()}
    recorded = RecordedRun(
        time=run.time * _FEMTOSECONDS,
        **seen,
        potential=run.potential,
        kinetic=run.kinetic,
        temperature=run.temperature,
    )
    told = {"checkpoint": settings.checkpoint.name, "molecule": settings.molecule}
    summary = told | nve_summary(recorded, wall_time_s=seconds)
    if settings.output is not None:
        replace_json(settings.output, summary)
    return summary


def benchmark(settings: BenchmarkSettings) -> Iterator[tuple[str, int, float, float]]:
    """What ``sparsejax benchmark`` does.

    Yields:
      name, atoms, and the mean and standard deviation of a call in ms: lists of neighbours, copies and all.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ValueError: it does not know the molecules' elements, or a number of calls is not positive.
    """
    if settings.iterations < 1 or settings.warmup < 0:
        raise ValueError("--iterations must be at least 1 and --warmup at least 0")
    field, draws = _field(settings.checkpoint), np.random.default_rng(0)
    for name in MOLECULES:
        atoms, seconds = _molecule(name), []
        for _ in range(settings.warmup + settings.iterations):
            atoms.positions += draws.normal(size=atoms.positions.shape) * _MOVE
            start = time.perf_counter()
            field.predict(atoms)
            seconds.append(time.perf_counter() - start)
        timed = 1e3 * np.asarray(seconds[settings.warmup :])
        yield name, len(atoms), float(timed.mean()), float(timed.std())


def told_validation(settings: ValidateSettings) -> list[str]:
    """`validate`, a line for each entry of the summary."""
    return [
        f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in validate(settings).items()
    ]


def told_benchmark(settings: BenchmarkSettings) -> list[str]:
    """`benchmark` as a table."""
    rows = [
        f"{name:10}{atoms:6}{mean:10.3f}{deviation:10.3f}"
        for name, atoms, mean, deviation in benchmark(settings)
    ]
    return [f"{'molecule':10}{'atoms':>6}{'mean ms':>10}{'std ms':>10}", *rows]


def _field(checkpoint: Path) -> ForceField:
    return ForceField.from_checkpoint(load(best_of(checkpoint), kind="force_field"))


def _molecule(name: str) -> Any:
    from ase.build import molecule

    if Path(name).is_file():
        return last_structure(Path(name))
    try:
        return molecule(name)
    except KeyError as error:
        raise ValueError(f"--molecule {name}: neither a file nor a molecule that ASE knows") from error
