"""Everything that is wrong with a file of labelled structures, each with its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import file_name
from sparsejax.models.force_field.dataset_errors import DatasetError, Problem
from sparsejax.models.force_field.dataset_layouts import Labels, Layout, open_layout, structural_problems
from sparsejax.models.force_field.neighbors import edge_list
from sparsejax.models.force_field.structure import SAME_SITE, SYMBOLS, Structure, check_geometry

LARGEST_Z = len(SYMBOLS) - 1


def check_dataset(path: str | PathLike[str]) -> list[Problem]:
    """Look through a whole file of labelled structures.

    Args:
      path: HDF5 file in the published layout, or with a group per structure.

    Returns:
      all problems, in the order of the file: first what keeps it from being read, and only if there is
      nothing of that kind what is wrong with single structures and labels. An empty list is good news.

    Raises:
      DatasetError: the file cannot be opened at all.
      ModuleNotFoundError: h5py is missing (extra ``force-field``).
    """
    with opened(path) as file:
        with readable(path, "its structure"):
            if problems := structural_problems(file):
                return problems
            layout = open_layout(file)
        problems = []
        for number in range(len(layout.sizes)):
            with readable(path, f"structure {number}"):
                structure, labels = layout.structure(number), layout.labels(number)
            found = value_problems(layout, number, structure, labels)
            problems += found or _site_problems(layout, number, structure)
        return problems


@contextmanager
def opened(path: str | PathLike[str]) -> Iterator[Any]:
    """An HDF5 file, open for reading.

    Raises:
      DatasetError: there is none, it may not be read, or it is damaged.
    """
    file = open_file(path)
    try:
        yield file
    finally:
        file.close()


def open_file(path: str | PathLike[str]) -> Any:
    """As `opened`, for a file that stays open.

    Raises:
      DatasetError: there is none, it may not be read, or it is damaged.
    """
    import h5py

    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise DatasetError(f"{file_name(path)}: is a pipe or a device; give an HDF5 file")
    try:
        # The default cache of 1 MiB would decompress a larger chunk again for every structure in it.
        return h5py.File(path, "r", rdcc_nbytes=64 << 20)
    except FileNotFoundError as error:
        raise DatasetError(f"{file_name(path)}: does not exist") from error
    except IsADirectoryError as error:
        raise DatasetError(f"{file_name(path)}: is a folder; give an HDF5 file") from error
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file_name(path)}: is no HDF5 file, or is damaged or cut short ({_reason(error)}); "
            "write it again"
        ) from error


@contextmanager
def readable(path: str | PathLike[str], what: str) -> Iterator[None]:
    """Tells damage that HDF5 meets in the middle of a file in one line.

    Args:
      path: of the file.
      what: is being read.

    Raises:
      DatasetError: HDF5 could not read it.
    """
    try:
        yield
    except DatasetError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DatasetError(
            f"{file_name(path)}: {what} cannot be read: the file is damaged or cut short ({_reason(error)})"
        ) from error


def value_problems(layout: Layout, number: int, structure: Structure, labels: Labels) -> list[Problem]:
    """What is wrong with a structure or its labels.

    Args:
      layout: knows the places.
      number: of the labelled structure.
      structure: its atoms.
      labels: its labels.

    Returns:
      no atoms, unknown elements, positions or labels that are no numbers, a cell that does not fit.
    """

    def problem(name: str, text: str) -> Problem:
        return Problem(f"{layout.place(number, name)} (structure {number})", text)

    if not structure.num_atoms:
        return [problem("species", "has no atoms")]
    problems = []
    if (bad := (structure.species < 1) | (structure.species > LARGEST_Z)).any():
        atom = int(np.argmax(bad))
        problems.append(problem("species", f"atom {atom} has atomic number {structure.species[atom]}"))
    try:
        check_geometry(structure, name="geometry")
    except ValueError as error:
        name = "cell" if np.isfinite(structure.positions).all() else "positions"
        problems.append(problem(name, str(error).removeprefix("geometry: ")))
    if not np.isfinite(labels.energy):
        problems.append(problem("energy", f"is {labels.energy}"))
    if (bad := ~np.isfinite(labels.forces).all(axis=1)).any():
        atom = int(np.argmax(bad))
        problems.append(problem("forces", f"the force on atom {atom} is {labels.forces[atom].tolist()}"))
    return problems + _stress_problems(problem, structure, labels)


def _stress_problems(problem: Any, structure: Structure, labels: Labels) -> list[Problem]:
    if labels.stress is None:
        return []
    if not np.isfinite(labels.stress).all():
        return [problem("stress", f"is {labels.stress.tolist()}")]
    if not structure.pbc.all():
        return [problem("stress", "is labelled, but only what repeats in three directions has a volume")]
    return []


def _site_problems(layout: Layout, number: int, structure: Structure) -> list[Problem]:
    pairs = edge_list(structure, SAME_SITE)
    if not len(pairs.senders):
        return []
    atoms = sorted((int(pairs.receivers[0]), int(pairs.senders[0])))
    place = f"{layout.place(number, 'positions')} (structure {number})"
    return [Problem(place, f"atoms {atoms[0]} and {atoms[1]} are on one site")]


def _reason(error: BaseException) -> str:
    """What HDF5 says, without its wrapping."""
    text = str(error).strip("'").splitlines()[0] if str(error) else type(error).__name__
    return text[text.find("(") + 1 : -1] if text.endswith(")") and "(" in text else text
