"""Structures labelled by a teacher into a data set: in order, in parallel, and resumable after a kill."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.checkpoint.errors import file_name
from sparsejax.checkpoint.native import durable
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.models.force_field.dataset_checks import opened
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from sparsejax.models.force_field.structure import as_structure
from sparsejax.models.force_field.teachers import Failure, Label, Outcome, Teacher, labelled_chunks

CHUNK = 32
"""Structures that a process labels, and that a kill loses, at a time."""

_JOB = "job.json"


class Labelling(NamedTuple):
    """What came of it.

    Attributes:
      path: of the data set.
      labelled: structures in it.
      failures: why others are not, by their number among the structures given.
    """

    path: Path
    labelled: int
    failures: dict[int, str]


def label_dataset(
    structures: Sequence[Any],
    teacher: Teacher,
    path: str | PathLike[str],
    *,
    processes: int | None = None,
    max_force: float | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Labelling:
    """Ask a teacher for the energies, forces and stress of structures and write a data set of them.

    Labels lie in a folder beside the path, ``<name>.parts``, until all are there. After a kill the same call
    labels what is left; when the data set is there it only tells what came of it.

    Args:
      structures: ``ase.Atoms`` or `Structure`; the data set has them in this order, without failures.
      teacher: makes a calculator of ASE; a function of a module, see `sparsejax.models.force_field.teachers`.
      path: of the HDF5 file to be written.
      processes: how many work side by side; one per processor if not given.
      max_force: eV/A; structures with a longer force on an atom are left out, as failures.
      told: takes the structures done, failures included, and those that failed; called now and then.

    Returns:
      `Labelling`.

    Raises:
      ValueError: no structures, or all of them failed.
      DatasetError: the path, or the folder beside it, holds something else.
      ModuleNotFoundError: h5py (extra ``force-field``) or the teacher's package is missing.

    Example:
      >>> from sparsejax.models.force_field.teachers import gfn2
      >>> label_dataset([], gfn2, "none.h5")
      Traceback (most recent call last):
      ValueError: there are no structures to label
    """
    path = Path(path)
    if not len(structures):
        raise ValueError("there are no structures to label")
    job = _job(structures, teacher, max_force)
    if path.exists():
        return _finished(path, job)
    folder = path.with_name(f"{path.name}.parts")
    _claim(folder, job)
    starts = range(0, len(structures), CHUNK)
    files = {start: folder / f"{start:09d}.npz" for start in starts}
    done = {start: _read_part(file) for start, file in files.items() if file.exists()}
    tell = told or (lambda done, failed: None)
    tell(*_counts(done))
    missing = ((start, structures[start : start + CHUNK]) for start in starts if start not in done)
    for start, outcomes in labelled_chunks(missing, teacher, processes=processes):
        done[start] = [_within(outcome, max_force) for outcome in outcomes]
        _write_part(files[start], done[start])
        tell(*_counts(done))
    return _written(path, folder, structures, [outcome for start in starts for outcome in done[start]], job)


def _job(structures: Sequence[Any], teacher: Teacher, max_force: float | None) -> dict[str, Any]:
    """What the labels depend on."""
    checksum = 0
    for given in structures:
        atoms = as_structure(given)
        cell = np.zeros((3, 3)) if atoms.cell is None else atoms.cell
        beside = getattr(given, "arrays", {})  # of ase.Atoms
        electrons = [beside[name] for name in ("initial_charges", "initial_magmoms") if name in beside]
        for array in (atoms.species, atoms.positions, cell, atoms.pbc, *electrons):
            checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    name = f"{teacher.__module__}:{getattr(teacher, '__qualname__', type(teacher).__qualname__)}"
    return {
        "teacher": name,
        "given": len(structures),
        "checksum": f"{checksum:08x}",
        "max_force": max_force or 0.0,
    }


def _finished(path: Path, job: dict[str, Any]) -> Labelling:
    with opened(path) as file:
        about = dict(file["metadata"].attrs) if "metadata" in file else {}
    if any(about.get(name) != value for name, value in job.items()):
        raise DatasetError(f"{file_name(path)}: exists and holds other labels; give another name")
    failures = {int(number): reason for number, reason in json.loads(about["failures"]).items()}
    return Labelling(path, int(about["n_structures"]), failures)


def _claim(folder: Path, job: dict[str, Any]) -> None:
    """Make the folder of the parts, or see that it is of the same job."""
    durable.create_folder(folder)
    file = folder / _JOB
    if not file.exists():
        if any(folder.iterdir()):
            raise DatasetError(f"{file_name(folder)}: holds something else; move it away")
        durable.replace_json(file, job)
    elif json.loads(file.read_text()) != job:
        raise DatasetError(
            f"{file_name(folder)}: holds labels of other structures or of another teacher; "
            "give another name, or remove it"
        )


def _counts(done: dict[int, list[Outcome]]) -> tuple[int, int]:
    outcomes = [outcome for part in done.values() for outcome in part]
    return len(outcomes), sum(isinstance(outcome, Failure) for outcome in outcomes)


def _within(outcome: Outcome, max_force: float | None) -> Outcome:
    if isinstance(outcome, Failure) or max_force is None:
        return outcome
    longest = float(np.linalg.norm(outcome.forces, axis=1).max(initial=0))
    if longest <= max_force:
        return outcome
    return Failure(f"a force of {longest:.4g} eV/A, longer than max_force = {max_force:g}")


def _write_part(file: Path, outcomes: Sequence[Outcome]) -> None:
    labels = [outcome if isinstance(outcome, Label) else None for outcome in outcomes]
    with replaced(file) as stream:
        np.savez(
            stream,
            reasons=np.array(
                [outcome.reason if isinstance(outcome, Failure) else "" for outcome in outcomes]
            ),
            energies=np.array([label.energy if label else np.nan for label in labels]),
            sizes=np.array([len(label.forces) if label else 0 for label in labels]),
            forces=np.concatenate([np.empty((0, 3)), *(label.forces for label in labels if label)]),
            stresses=np.array([_nan_if_none(label) for label in labels]),
        )


def _nan_if_none(label: Label | None) -> np.ndarray:
    return np.full(6, np.nan) if label is None or label.stress is None else label.stress


def _read_part(file: Path) -> list[Outcome]:
    with np.load(file, allow_pickle=False) as part:
        arrays = dict(part)
    forces = np.split(arrays["forces"], np.cumsum(arrays["sizes"])[:-1])
    outcomes: list[Outcome] = []
    for number, reason in enumerate(arrays["reasons"].tolist()):
        stress = arrays["stresses"][number]
        label = Label(
            float(arrays["energies"][number]), forces[number], None if np.isnan(stress).any() else stress
        )
        outcomes.append(Failure(reason) if reason else label)
    return outcomes


def _written(
    path: Path, folder: Path, structures: Sequence[Any], outcomes: Sequence[Outcome], job: dict[str, Any]
) -> Labelling:
    failures = {
        number: outcome.reason for number, outcome in enumerate(outcomes) if isinstance(outcome, Failure)
    }
    if len(failures) == len(structures):
        raise ValueError(f"the teacher failed on all {len(structures)} structures, first: {failures[0]}")
    about = {**job, "failures": json.dumps(failures)}
    with DatasetWriter(path, metadata=about) as writer:
        for structure, label in _labelled(structures, outcomes):
            writer.add(structure, *label)
    shutil.rmtree(folder)
    return Labelling(path, len(structures) - len(failures), failures)


def _labelled(structures: Sequence[Any], outcomes: Sequence[Outcome]) -> Iterator[tuple[Any, Label]]:
    for structure, outcome in zip(structures, outcomes, strict=True):
        if isinstance(outcome, Label):
            yield structure, outcome
