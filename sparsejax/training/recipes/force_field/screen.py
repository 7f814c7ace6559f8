"""Energies, forces and stress of a file of structures: what ``sparsejax screen`` calls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.load import load
from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_sources import (
    HDF5_SUFFIXES,
    read_atoms,
    write_dataset,
    write_extxyz,
)
from sparsejax.models.force_field.potential import ForceField, Prediction
from sparsejax.models.force_field.screening import screen
from sparsejax.models.force_field.structure import as_structure
from sparsejax.training.processes import is_first_process
from sparsejax.training.recipes.force_field.screen_settings import ScreenSettings
from sparsejax.training.run_folder import best_of

_EXTXYZ = (".extxyz", ".xyz")


def told_screening(settings: ScreenSettings, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """`screen_file`, then what there is to say of it, a line each."""
    began = time.monotonic()
    energies = np.array([one.energy / len(one.forces) for one in screen_file(settings, overrides)])
    lowest, highest = int(energies.argmin()), int(energies.argmax())
    return [
        f"{len(energies):,} structures in {time.monotonic() - began:.1f} s: {settings.devices} devices, "
        f"{jax.process_count()} processes; reading, compilation and writing included",
        f"energy per atom: lowest {energies[lowest]:.6f} eV (structure {lowest}), highest "
        f"{energies[highest]:.6f} eV (structure {highest})",
        f"results: {settings.out}",
    ]


def screen_file(settings: ScreenSettings, overrides: Mapping[str, Any] | None = None) -> list[Prediction]:
    """What ``sparsejax screen`` does, in every process of a job; the first one writes.

    Args:
      settings: of the command.
      overrides: ``settings.override`` as values.

    Returns:
      the predictions, in the order of the file.

    Raises:
      CheckpointError: the checkpoint or a structure cannot be read, or the results cannot be written.
      ValueError: no structures, one that the network cannot answer for, another suffix of --out, or more
        devices than there are.
      ModuleNotFoundError: ase or h5py is missing (extra ``force-field``).
    """
    if not 1 <= settings.devices <= jax.device_count():
        raise ValueError(f"{settings.devices} devices are asked for, there are {jax.device_count()}")
    if settings.out.suffix.lower() not in (*HDF5_SUFFIXES, *_EXTXYZ):
        raise ValueError(
            f"{settings.out}: results are written as .h5 or .extxyz; give one of them with --out"
        )
    path = best_of(settings.checkpoint)
    ck = load(path, kind="force_field", variant=settings.variant, overrides=overrides)
    atoms = read_structures(settings.structures)
    field = ForceField.from_checkpoint(ck, filter=settings.filter)
    found = screen(field, atoms, devices=jax.devices()[: settings.devices])
    if is_first_process():
        samples = [
            LabelledStructure(as_structure(one), float(own.energy), *_arrays(own))
            for one, own in zip(atoms, found, strict=True)
        ]
        if settings.out.suffix.lower() in HDF5_SUFFIXES:
            write_dataset(samples, settings.out, mode="replace")
        else:
            write_extxyz(samples, settings.out)
    return found


def read_structures(path: Path) -> list[Any]:
    """All structures of a file, as `ase.Atoms`.

    Raises:
      DatasetError: it is missing, or one of them cannot be read; the message tells its place.
      ModuleNotFoundError: ase is missing (extra ``force-field``).
    """
    found: list[Any] = []
    try:
        for atoms in read_atoms(path):
            found.append(atoms)  # noqa: PERF402 - what was read before an error counts
    except DatasetError as error:
        if not path.is_file():
            raise
        raise DatasetError(f"{error}; {len(found)} structures before it could be read") from error
    return found


def _arrays(prediction: Prediction) -> tuple[np.ndarray, np.ndarray | None]:
    stress = prediction.stress
    return np.asarray(prediction.forces), None if stress is None else np.asarray(stress)
