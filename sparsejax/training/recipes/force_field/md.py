"""Molecular dynamics from files to files: checkpoint, structure and ensemble put together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.load import load
from sparsejax.models.force_field import md
from sparsejax.models.force_field.md.restart import saved_step
from sparsejax.models.force_field.potential import ForceField
from sparsejax.training.progress import Style, shown_progress
from sparsejax.training.recipes.force_field.md_log import DynamicsLog
from sparsejax.training.recipes.force_field.md_settings import MdSettings
from sparsejax.training.run_checks import check_output
from sparsejax.training.run_folder import best_of


def dynamics(settings: MdSettings, overrides: Mapping[str, Any] | None = None) -> md.Run:
    """What ``sparsejax md`` does; progress is printed as it goes.

    Args:
      settings: of the command.
      overrides: ``settings.override`` as values.

    Returns:
      the records and the atoms at the end.

    Raises:
      CheckpointError: the checkpoint or the restart folder cannot be read or written.
      ValueError: the structure or a setting does not fit.
      FloatingPointError: an energy is not finite.
      OSError: a file is missing or cannot be written.
    """
    with jax.enable_x64(True) if settings.float64 else contextlib.nullcontext():
        dtype = np.float64 if settings.float64 else None
        if settings.log is not None:
            check_output(settings.log, "--log")
        path = best_of(settings.checkpoint)
        ck = load(path, kind="force_field", variant=settings.variant, overrides=overrides, dtype=dtype)
        force_field = ForceField.from_checkpoint(ck, filter=settings.filter)
        atoms = last_structure(settings.structure)
        with _logged(settings, atoms) as log, _told(settings, len(atoms), log) as progress:
            return _run(settings, force_field, atoms, progress, log and log.sync)


def last_structure(path: Path) -> Any:
    """The last structure of a file, as `ase.Atoms`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: ASE cannot read it.
    """
    from ase.io import read

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; give a structure with --structure")
    try:
        return read(path)
    except Exception as error:  # every format has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a structure: {reason}") from error


def summary(settings: MdSettings, run: md.Run, seconds: float) -> list[str]:
    """What there is to say at the end, a line each."""
    steps = int(run.simulation.step)
    if settings.ensemble == "minimize":
        arrived = "arrived" if run.finished else f"did not arrive at {settings.fmax:g} eV/A"
        force = float(np.sqrt((np.asarray(run.simulation.state.forces) ** 2).sum(-1).max()))
        energies = ", ".join(f"{energy:.6f}" for energy in np.ravel(run.potential[-1:]))
        return [f"minimize: {arrived} after {steps:,} steps: {energies} eV, largest force {force:.2g} eV/A"]
    parts = [f"{settings.ensemble}: {steps:,} steps of {settings.timestep:g} fs in {seconds:.1f} s"]
    if len(run.step) > 1:
        parts.append(f"mean temperature {run.temperature.mean():.1f} K")
        parts.append(f"drift {np.abs(run.drift).max():.2g} eV/atom/ps of the conserved energy")
    if run.pressure is not None and len(run.pressure):
        parts.append(f"mean pressure {run.pressure.mean() / md.GPA:.3f} GPa")
    return [", ".join(parts)]


def told_dynamics(settings: MdSettings, overrides: Mapping[str, Any] | None = None) -> Iterator[str]:
    """`dynamics`, then the lines of its summary and where its files are."""
    began = time.monotonic()
    run = dynamics(settings, overrides)
    yield from summary(settings, run, time.monotonic() - began)
    for what, path in (("trajectory", settings.out), ("log", settings.log), ("restart", settings.restart)):
        if path is not None:
            yield f"{what}: {path}"


def _logged(settings: MdSettings, atoms: Any) -> contextlib.AbstractContextManager[DynamicsLog | None]:
    if settings.log is None:
        return contextlib.nullcontext()
    saved = settings.restart if settings.resume else None
    return DynamicsLog(
        settings.log,
        timestep=1.0 if settings.ensemble == "minimize" else settings.timestep,
        replicas=settings.replicas is not None,
        periodic=bool(atoms.pbc.all()),
        keep=None if saved is None else saved_step(saved),
    )


def _run(
    settings: MdSettings, force_field: ForceField, atoms: Any, progress: Any, before_save: Any
) -> md.Run:
    options: md.Options = {
        "replicas": settings.replicas,
        "seed": settings.seed,
        "draw_velocities": settings.draw_velocities or None,
        "remove_rotation": settings.remove_rotation,
        "every": settings.every,
        "trajectory": settings.out,
        "restart": settings.restart,
        "resume": settings.resume,
        "save_every": settings.save_every,
        "skin": settings.skin,
        "progress": progress,
        "before_save": before_save,
    }
    steps, name = settings.steps, settings.ensemble
    if name == "minimize":
        return md.minimize(force_field, atoms, steps=steps, fmax=settings.fmax, **options)
    timestep, temperature = settings.timestep, settings.temperature
    if name == "nve":
        return md.nve(force_field, atoms, steps=steps, timestep=timestep, temperature=temperature, **options)
    if name == "npt":
        return md.npt(
            force_field,
            atoms,
            steps=steps,
            timestep=timestep,
            temperature=temperature,
            pressure=settings.pressure_gpa * md.GPA,
            period=settings.period,
            pressure_period=settings.pressure_period,
            **options,
        )
    return md.nvt(
        force_field,
        atoms,
        steps=steps,
        timestep=timestep,
        temperature=temperature,
        thermostat="nose_hoover" if name == "nose-hoover" else "langevin",
        friction=settings.friction,
        period=settings.period,
        **options,
    )


@contextlib.contextmanager
def _told(settings: MdSettings, atoms: int, log: DynamicsLog | None) -> Iterator[Any]:
    """Progress of the run: a bar or lines, and rows of the log."""
    style: Style = "quiet" if settings.quiet else "auto"
    what = f"{settings.ensemble}, {atoms} atoms"
    with shown_progress(what, start=0, stop=settings.steps, style=style, unit="step") as update:

        def progress(step: int, records: Mapping[str, np.ndarray]) -> None:
            if log is not None:
                log.append(records)
            words = "starting"
            if len(records["step"]):
                potential, kelvin = records["potential"][-1].mean(), records["temperature"][-1].mean()
                words = f"{potential:.5f} eV, {kelvin:.0f} K"
            update(max(step, 0), words)

        yield progress
