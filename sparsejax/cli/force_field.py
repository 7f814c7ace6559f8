"""Commands of the force field: labels, dynamics and the published checks."""

from __future__ import annotations

from pathlib import Path

from sparsejax.cli.arguments import one_line, overrides_of
from sparsejax.training.recipes.force_field.checks_settings import BenchmarkSettings, ValidateSettings
from sparsejax.training.recipes.force_field.md_settings import MdSettings
from sparsejax.training.recipes.force_field.screen_settings import ScreenSettings


def label(
    structures: Path,
    teacher: str,
    out: Path,
    *,
    rattle: int = 0,
    spread: tuple[float, float] = (0.05, 0.15),
    scale: tuple[float, float] = (0.95, 1.05),
    max_force: float | None = None,
    processes: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> None:
    """Label structures with a teacher's energies, forces and stress; the same command goes on after a kill.

    Args:
      structures: any file that ASE reads, such as .extxyz.
      teacher: gfn2, gfn1, or any factory of ASE calculators as package.module:function.
      out: HDF5 data set to write, for ``sparsejax train force-field --data``.
      rattle: label so many distorted copies of each structure instead of the structure.
      spread: A, least and largest standard deviation of the displacements of a copy.
      scale: least and largest factor of all positions of a copy.
      max_force: eV/A; structures with a longer force on an atom are left out.
      processes: how many work side by side; one per processor if not given.
      seed: of the distortions.
      quiet: print nothing but errors.
    """
    from sparsejax.training.recipes.force_field.labels import label_file

    with one_line(ValueError):
        found = label_file(
            structures,
            teacher,
            out,
            rattle=rattle,
            spread=spread,
            scale=scale,
            max_force=max_force,
            processes=processes,
            seed=seed,
            style="quiet" if quiet else "auto",
        )
    if not quiet:
        for number, reason in found.failures.items():
            print(f"left out: structure {number}: {reason}")
        print(f"{found.path}: {found.labelled:,} labelled structures, {len(found.failures):,} left out")


def md(settings: MdSettings) -> None:
    """Run molecular dynamics of a molecule or crystal with a force field, or minimise it."""
    from sparsejax.training.recipes.force_field.md import told_dynamics

    with one_line(ValueError, FloatingPointError):
        for line in told_dynamics(settings, overrides_of(settings.override)):
            print(line)


def screen(settings: ScreenSettings) -> None:
    """Compute energies and forces of all structures of a file, on the devices of one or several processes."""
    from sparsejax.training import processes
    from sparsejax.training.errors import RunError
    from sparsejax.training.recipes.force_field.screen import told_screening

    with one_line(ValueError, RuntimeError):
        settings = processes.joined(settings)
    with one_line(ValueError, RunError), processes.told_losses():
        lines = told_screening(settings, overrides_of(settings.override))
        if processes.is_first_process() and not settings.quiet:
            print(*lines, sep="\n")
        processes.end_processes()


def validate(settings: ValidateSettings) -> None:
    """Run a molecule at constant energy and judge how well a force field conserves it."""
    from sparsejax.training.recipes.force_field.checks import told_validation

    with one_line(ValueError, FloatingPointError):
        print(*told_validation(settings), sep="\n")


def benchmark(settings: BenchmarkSettings) -> None:
    """Time energies and forces of four small molecules, atoms moved before every call."""
    from sparsejax.training.recipes.force_field.checks import told_benchmark

    with one_line(ValueError):
        print(*told_benchmark(settings), sep="\n")
