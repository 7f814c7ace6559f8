"""Data sets from and to ASE: lists of atoms, extxyz, .traj and whatever else ASE reads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.checkpoint.errors import file_name
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_writer import DatasetWriter, WriteMode
from sparsejax.models.force_field.structure import as_atoms, as_structure

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
"""Of data sets; in any case."""


class LabelNames(NamedTuple):
    """Where labels are: among the results of a calculator, or in ``atoms.info`` and ``atoms.arrays``.

    Attributes:
      energy: eV.
      forces: eV/A.
      stress: eV/A^3 with ASE's sign and order, (6,) or (3, 3); may be missing.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"


def write_dataset(
    sources: Any,
    path: str | PathLike[str],
    *,
    names: LabelNames | None = None,
    mode: WriteMode = "create",
    metadata: Mapping[str, str | int | float] | None = None,
) -> int:
    """Write labelled structures into an HDF5 data set.

    Args:
      sources: a file that ASE reads, such as ``.extxyz`` or ``.traj``, or an iterable of files, of
        ``ase.Atoms`` with results, or of `LabelledStructure`.
      path: of the data set.
      names: where labels are; where calculators leave them if not given.
      mode: of `DatasetWriter`.
      metadata: of `DatasetWriter`.

    Returns:
      structures written.

    Raises:
      DatasetError: a file cannot be read, or a structure lacks labels or has unusable ones; nothing was
        written.
      ModuleNotFoundError: ase or h5py is missing (extra ``force-field``).

    Example:
      >>> import ase, tempfile
      >>> from ase.calculators.singlepoint import SinglePointCalculator
      >>> atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
      >>> atoms.calc = SinglePointCalculator(atoms, energy=-31.7, forces=np.zeros((2, 3)))
      >>> write_dataset([atoms], Path(tempfile.mkdtemp()) / "hydrogen.h5")
      1
    """
    with DatasetWriter(path, mode=mode, metadata=metadata) as writer:
        before = len(writer)
        for sample in labelled_structures(sources, names):
            writer.add(*sample)
        return len(writer) - before


def labelled_structures(sources: Any, names: LabelNames | None = None) -> Iterator[LabelledStructure]:
    """Read labelled structures one by one.

    Args:
      sources: as of `write_dataset`.
      names: where labels are; where calculators leave them if not given.

    Raises:
      DatasetError: a file cannot be read, or a structure lacks labels.
    """
    names = names or LabelNames()
    for source in [sources] if isinstance(sources, str | PathLike) or hasattr(sources, "info") else sources:
        if isinstance(source, LabelledStructure):
            yield source
        elif isinstance(source, str | PathLike):
            for number, atoms in enumerate(read_atoms(source)):
                yield from_atoms(atoms, names, name=f"{file_name(source)}: structure {number}")
        else:
            yield from_atoms(source, names)


def from_atoms(atoms: Any, names: LabelNames | None = None, *, name: str = "atoms") -> LabelledStructure:
    """Atoms with the results that their calculator already has; nothing is computed.

    Args:
      atoms: ``ase.Atoms``.
      names: where labels are; where calculators leave them if not given.
      name: what the message calls them.

    Returns:
      the same as arrays. Forces are those on all atoms, whatever constraints say.

    Raises:
      DatasetError: there is no energy or no forces; it tells what there is.
    """
    names = names or LabelNames()
    results = {**atoms.arrays, **atoms.info}
    if atoms.calc is not None:
        # A calculator whose atoms were moved afterwards would return None, or the results of other positions.
        moved = atoms.calc.check_state(atoms) if hasattr(atoms.calc, "check_state") else ()
        if moved:
            raise DatasetError(f"{name}: changed ({', '.join(moved)}) after its results were computed")
        results |= {key: value for key, value in atoms.calc.results.items() if value is not None}
    for wanted in (names.energy, names.forces):
        if wanted not in results:
            known = ", ".join(sorted(set(results) - {"numbers", "positions"})) or "no results"
            raise DatasetError(f"{name}: has no {wanted!r} (there are: {known}); give names=LabelNames(...)")
    stress = results.get(names.stress)
    if stress is not None:
        stress = _voigt(np.asarray(stress, np.float64), name)
    return LabelledStructure(
        as_structure(atoms), float(results[names.energy]), np.asarray(results[names.forces]), stress
    )


def to_atoms(sample: LabelledStructure) -> Any:
    """``ase.Atoms`` with the labels as results of a calculator.

    Args:
      sample: such as a data set holds.

    Raises:
      ModuleNotFoundError: ase is missing (extra ``force-field``).
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = as_atoms(sample.structure)
    labels = {"energy": sample.energy, "forces": np.asarray(sample.forces, np.float64)}
    if sample.stress is not None:
        labels["stress"] = sample.stress
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def write_extxyz(samples: Iterable[LabelledStructure], path: str | PathLike[str]) -> None:
    """Write a data set as extended XYZ; the file appears when it is whole. Numbers have 8 decimals.

    Args:
      samples: a data set, or any labelled structures.
      path: of the file; it is replaced.

    Raises:
      ExportError: the file cannot be written; what was there stays.
      ModuleNotFoundError: ase is missing (extra ``force-field``).
    """
    from ase.io import write

    with replaced(path) as stream:
        for sample in samples:
            text = io.StringIO()
            write(text, to_atoms(sample), format="extxyz")
            stream.write(text.getvalue().encode())


def is_data_set(path: Path) -> bool:
    """Whether a path is to be opened as a data set, not by ASE; one that is missing is, for its error.

    Example:
      >>> is_data_set(Path("labels.HDF5"))
      True
    """
    return path.suffix.lower() in HDF5_SUFFIXES or not path.exists()


def read_atoms(path: str | PathLike[str]) -> Iterator[Any]:
    """Structures of a file, one by one, with whatever results it holds.

    Args:
      path: in any format that ASE reads.

    Raises:
      DatasetError: it is missing, or ASE cannot read it.
      ModuleNotFoundError: ase is missing (extra ``force-field``).
    """
    from ase.io import iread

    try:
        yield from iread(Path(path), index=":")
    except FileNotFoundError as error:
        raise DatasetError(f"{file_name(path)}: does not exist") from error
    except Exception as error:  # each of ASE's formats fails in its own way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DatasetError(f"{file_name(path)}: ASE cannot read it ({reason})") from error


def _voigt(stress: np.ndarray, name: str) -> np.ndarray:
    if stress.shape == (3, 3):
        return np.array([stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]])
    if stress.shape in {(6,), (9,)}:
        return stress if stress.size == 6 else _voigt(stress.reshape(3, 3), name)
    raise DatasetError(f"{name}: a stress is (6,) or (3, 3), not {stress.shape}")
