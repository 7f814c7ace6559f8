"""Pictures of a force field's files: a checkpoint beside labelled structures, and a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.plots import force_field as figures
from sparsejax.plots.style import write_figures
from sparsejax.training.errors import RunError

if TYPE_CHECKING:
    from sparsejax.checkpoint.checkpoint import Checkpoint

_MOST_FRAMES = 200
"""Of a trajectory, for distances; evenly spaced ones if there are more."""


def draw_data(
    ck: Checkpoint, data: Path, out: Path, *, most: int | None = None, name: str = ""
) -> tuple[Path, ...]:
    """Draw how the forces of a network differ from those of labelled structures.

    Args:
      ck: of a force field.
      data: HDF5 data set, or any file with results that ASE reads.
      out: folder; made if needed.
      most: structures to look at, the first ones; all if None.
      name: of the network, for the titles.

    Returns:
      the PNG files.

    Raises:
      DatasetError: the data cannot be read.
      ValueError: a structure that the network cannot answer for.
      ModuleNotFoundError: matplotlib, h5py or ase is missing.
    """
    from sparsejax.models.force_field.error_patterns import errors_by_element, errors_by_magnitude
    from sparsejax.models.force_field.force_metrics import angular_errors
    from sparsejax.models.force_field.labelled_forces import compare_forces, read_labelled
    from sparsejax.models.force_field.potential import ForceField

    found = compare_forces(ForceField.from_checkpoint(ck), read_labelled(data, most))
    elements = errors_by_element(found.predicted, found.reference, found.species)
    magnitudes = errors_by_magnitude(found.predicted, found.reference)
    angles = {"": angular_errors(found.predicted, found.reference)}
    return write_figures(
        out,
        {
            "force_parity": figures.force_parity(*found[:3], name),
            "angle_distribution": figures.angle_distribution(angles, name),
            "errors_by_element": figures.error_groups({name: elements}, "element", name=name),
            "errors_by_magnitude": figures.error_groups(
                {name: magnitudes}, "length of the reference force", "eV/A", name
            ),
        },
    )


def draw_trajectory(path: Path, out: Path) -> tuple[Path, ...]:
    """Draw energy, temperature and distances of a trajectory.

    Args:
      path: .traj, .extxyz or .xyz, as ``sparsejax md`` writes them, or ASE. Without energies, or of a single
        frame, distances alone are drawn; without times, frames count as 1 fs.
      out: folder; made if needed.

    Returns:
      the PNG files.

    Raises:
      RunError: the file holds no frames, or ASE cannot read it.
      ModuleNotFoundError: matplotlib or ase is missing.
    """
    from sparsejax.models.force_field.radial_distribution import radial_distribution
    from sparsejax.models.force_field.structure import as_structure

    frames = _frames(path)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).astype(int))
    try:
        distances = radial_distribution([as_structure(frames[place]) for place in chosen])
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error
    pictures = {"distances": figures.radial_distribution(distances, path.stem)}
    if len(frames) > 1 and all(_energy(atoms) is not None for atoms in frames):
        pictures = {"energy_drift": _drift(frames, path.stem), **pictures}
    return write_figures(out, pictures)


def _frames(path: Path) -> list[Any]:
    from sparsejax.models.force_field.md.trajectory import read_frames

    if not path.is_file():
        raise RunError(f"{path}: there is no such file")
    try:
        frames = list(read_frames(path))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every format has errors of its own
        raise RunError(f"{path}: cannot be read as a trajectory: {' '.join(str(error).split())}") from error
    if not frames:
        raise RunError(f"{path}: holds no frames")
    return frames


def _drift(frames: list[Any], name: str) -> Any:
    times = np.array([atoms.info.get("time_fs", place) for place, atoms in enumerate(frames)]) / 1000
    total = np.array([_energy(atoms) + atoms.get_kinetic_energy() for atoms in frames])
    temperature = np.array([atoms.get_temperature() for atoms in frames])
    moving = temperature if temperature.any() else None
    return figures.energy_drift(times, total, len(frames[0]), moving, name)


def _energy(atoms: Any) -> float | None:
    """The potential energy that a file tells, eV."""
    return None if atoms.calc is None else atoms.calc.results.get("energy")
