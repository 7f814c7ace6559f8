"""Writes labelled structures in the published layout; a kill leaves the file as it was last saved."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.checkpoint.errors import file_name
from sparsejax.checkpoint.native import durable
from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_checks import LARGEST_Z
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_layouts import RAGGED, Field
from sparsejax.models.force_field.dataset_room import SLACK, reserve
from sparsejax.models.force_field.structure import Structure, as_structure, check_geometry

WriteMode = Literal["create", "replace", "append"]

_ATOMS = ("structures/atomic_numbers", "structures/positions", "labels/forces")
_SPLITS = ("structures/atomic_numbers_splits", "labels/forces_splits")
_DTYPES = {
    "structures/positions": "f8",
    "structures/cells": "f8",
    "labels/energy": "f8",
    "labels/forces": "f4",
    "labels/stress": "f8",
    "structures/pbc": "?",
    "labels/stress_mask": "?",
}  # int64 for the rest
_CHUNK_ATOMS, _CHUNK_STRUCTURES = 4096, 256
_GZIP_LEVEL = 4
_SYSTEM_SAYS = re.compile(r"error message = '([^']+)'")  # within what HDF5 says of its own calls
_HELD = 1 << 16  # atoms kept in memory before they go to the disk


class DatasetWriter:
    """Adds labelled structures to a file, one by one, after looking at each.

    They go to a file of another name beside the path. `save` puts it in place in one step, and so does
    leaving the ``with`` block without an error: a kill at any moment leaves a whole file, the old or the new
    one. Call `save` now and then where labels are dear; what comes next starts with a copy of the file.

    Args:
      path: HDF5 file to write.
      mode: "create" refuses a path that exists; "replace" and "append" do not. What is appended to may be in
        any layout that can be read.
      metadata: attributes of the group ``metadata``, such as who labelled; numbers and text.

    Raises:
      DatasetError: the path exists, is appended to and cannot be read, or cannot be written; what was there
        stays as it was last saved.
      ModuleNotFoundError: h5py is missing (extra ``force-field``).

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "hydrogen.h5"
      >>> molecule = Structure(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.7]]), None, np.zeros(3, bool))
      >>> with DatasetWriter(path) as writer:
      ...     writer.add(molecule, -31.0, [[0.0, 0.0, -1.5], [0.0, 0.0, 1.5]])
      >>> ForceFieldDataset(path)[0].energy
      -31.0

    Source: specs/force_field.md section 5.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        mode: WriteMode = "create",
        metadata: Mapping[str, str | int | float] | None = None,
    ):
        if mode not in get_args(WriteMode):
            raise ValueError(f"mode must be one of {get_args(WriteMode)}, not {mode!r}")
        self.path = Path(path)
        if mode == "create" and self.path.exists():
            raise DatasetError(f'{file_name(path)}: exists; give mode="replace" or mode="append"')
        self._metadata = dict(metadata or {})
        self._file: Any = None
        self._temporary: Path | None = None
        self._refused: DatasetError | None = None
        self._in_place = mode == "append" and self.path.exists()
        self._count = 0
        with self._writing():
            self._begin()

    def __len__(self) -> int:
        """Structures in all, those of the file that is appended to included."""
        return self._count

    def add(self, structure: Any, energy: float, forces: ArrayLike, stress: ArrayLike | None = None) -> None:
        """Add a structure with its labels.

        Args:
          structure: `Structure` or ``ase.Atoms``.
          energy: eV.
          forces: (n, 3) eV/A; stored in float32, as published.
          stress: (6,) eV/A^3 in the order xx, yy, zz, yz, xz, xy; None where it is not known.

        Raises:
          DatasetError: no atoms, an unknown element, shapes that do not fit, NaN, or a cell that does not
            fit, and nothing was added; or the file cannot be written: what was not saved is lost, and every
            later call raises the same.
        """
        name = f"{file_name(self.path)}: structure {self._count}"
        atoms, values = _checked(name, structure, energy, forces, stress)
        with self._writing():
            if self._file is None:
                self._begin()
            self._hold(atoms, values, energy)

    def _hold(self, atoms: Structure, values: dict[str, np.ndarray], energy: float) -> None:
        rows = {
            "structures/atomic_numbers": atoms.species,
            "structures/positions": atoms.positions,
            "structures/cells": [np.zeros((3, 3)) if atoms.cell is None else atoms.cell],
            "structures/pbc": [atoms.pbc],
            "labels/energy": [float(energy)],
            "labels/forces": values["forces"],
            "labels/stress": [values.get("stress", np.zeros(6))],
            "labels/stress_mask": ["stress" in values],
            "labels/structure_indices": [self._count],
        }
        for place, part in rows.items():
            self._held[place].append(np.asarray(part))
        self._sizes.append(atoms.num_atoms)
        self._count += 1
        if sum(self._sizes) >= _HELD:
            self._flush()

    def save(self) -> None:
        """Put the file with all structures so far in place; more can be added after."""
        if self._file is None and self._refused is None:
            return
        with self._writing():
            self._put_in_place()

    def _put_in_place(self) -> None:
        self._flush()
        metadata = self._file["metadata"].attrs
        count, atoms = self._count, len(self._file["structures/atomic_numbers"])
        for name, value in (self._metadata | {"n_structures": count, "total_atoms": atoms}).items():
            metadata[name] = value
        self._file.flush()
        end = self._file.id.get_filesize()
        self._file.close()
        self._file = None
        assert self._temporary is not None
        os.truncate(self._temporary, end)  # gives back the room that was not needed
        durable.sync([self._temporary])
        os.replace(self._temporary, self.path)
        durable.sync([self.path.parent])
        self._temporary, self._in_place = None, True

    def __enter__(self) -> DatasetWriter:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Save, or after an error drop what was not saved."""
        if kind is None:
            self.save()
        self._drop()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells what the system or HDF5 refuse in one line, drops what was not saved, and writes no more."""
        if self._refused is not None:
            raise self._refused
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._drop()
            told = _SYSTEM_SAYS.search(str(error))
            reason = told[1] if told else getattr(error, "strerror", None) or str(error)
            reason = " ".join(reason.split())[:200]
            self._refused = DatasetError(f"{file_name(self.path)}: cannot be written ({reason})")
            raise self._refused from error

    def _begin(self) -> None:
        """Open a file of another name that holds what is in place."""
        durable.create_folder(self.path.parent)
        self._clear()
        self._count = 0
        self._temporary = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")
        try:
            if self._in_place:
                self._take_over()
            else:
                self._create()
        except BaseException:
            self._drop()
            raise

    def _take_over(self) -> None:
        """Start with the structures of the file in place: a copy of it, or of them where it cannot grow."""
        import h5py

        assert self._temporary is not None
        with ForceFieldDataset(self.path) as old:
            if _can_grow(self.path):
                shutil.copyfile(self.path, self._temporary)
                self._file = h5py.File(self._temporary, "r+")
                self._count = len(old)
                self._reserve()
                return
            self._create()
            for sample in old:
                self.add(*sample)
        with h5py.File(self.path, "r") as file:
            self._metadata = dict(file["metadata"].attrs if "metadata" in file else {}) | self._metadata

    def _create(self) -> None:
        """An empty file, after a look whether there is room for it."""
        assert self._temporary is not None
        self._temporary.touch(exist_ok=False)
        reserve(self._temporary, 0, SLACK)
        self._temporary.unlink()
        self._file = _created(self._temporary)
        self._reserve()

    def _drop(self) -> None:
        """Forget what was added since the last save."""
        if self._file is not None:
            with suppress(OSError, RuntimeError):  # of what a full disk did not take
                self._file.close()
            self._file = None
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _flush(self) -> None:
        """Move what is held in memory to the file."""
        self._reserve(2 * sum(part.nbytes for parts in self._held.values() for part in parts))
        for place, parts in self._held.items():
            if parts:
                _extend(self._file[place], np.concatenate(parts))
        for place in _SPLITS:
            last = self._file[place][-1]
            _extend(self._file[place], last + np.cumsum(self._sizes, dtype=np.int64))
        self._clear()

    def _reserve(self, nbytes: int = 0) -> None:
        assert self._temporary is not None
        reserve(self._temporary, self._file.id.get_filesize(), nbytes + SLACK)

    def _clear(self) -> None:
        self._held: dict[str, list[np.ndarray]] = {
            field.place: [] for field in RAGGED if field.place not in _SPLITS
        }
        self._sizes: list[int] = []


def _checked(
    name: str, structure: Any, energy: float, forces: ArrayLike, stress: ArrayLike | None
) -> tuple[Structure, dict[str, np.ndarray]]:
    try:
        atoms = as_structure(structure)
        check_geometry(atoms, name="geometry")
        values = {"energy": np.asarray(energy, np.float64), "forces": np.asarray(forces, np.float64)}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{name}: {str(error).removeprefix('geometry: ')}") from error
    if not atoms.num_atoms:
        raise DatasetError(f"{name}: has no atoms")
    if (bad := (atoms.species < 1) | (atoms.species > LARGEST_Z)).any():
        raise DatasetError(f"{name}: there is no element {atoms.species[int(np.argmax(bad))]}")
    shapes: dict[str, tuple[int, ...]] = {"energy": (), "forces": (atoms.num_atoms, 3)}
    if stress is not None:
        values["stress"], shapes["stress"] = np.asarray(stress, np.float64), (6,)
        if not atoms.pbc.all():
            raise DatasetError(f"{name}: only what repeats in three directions has a stress; give None")
    for label, value in values.items():
        if value.shape != shapes[label]:
            raise DatasetError(f"{name}: {label} must be of shape {shapes[label]}, not {value.shape}")
        if not np.isfinite(value).all():
            raise DatasetError(f"{name}: {label} holds NaN or infinity; leave the structure out")
    return atoms, values


def _created(path: Path) -> Any:
    """A new file of empty arrays that can grow."""
    import h5py

    file = h5py.File(path, "w-")
    for field in RAGGED:
        _create_array(file, field)
    for place in _SPLITS:
        _extend(file[place], np.zeros(1, np.int64))
    file.create_group("metadata")
    return file


def _create_array(file: Any, field: Field) -> None:
    rest = tuple(size for size in field.shape[1:] if isinstance(size, int))
    of_atoms = field.place in _ATOMS
    file.create_dataset(
        field.place,
        shape=(0, *rest),
        maxshape=(None, *rest),
        dtype=_DTYPES.get(field.place, "i8"),
        chunks=(_CHUNK_ATOMS if of_atoms else _CHUNK_STRUCTURES, *rest),
        compression="gzip" if of_atoms else None,
        compression_opts=_GZIP_LEVEL if of_atoms else None,
    )


def _extend(array: Any, rows: np.ndarray) -> None:
    before = len(array)
    array.resize(before + len(rows), axis=0)
    array[before:] = rows


def _can_grow(path: Path) -> bool:
    """Whether the file was made here: every array is there and may grow, and labels follow structures."""
    import h5py

    with h5py.File(path, "r") as file:
        arrays = [file.get(field.place) for field in RAGGED]
        if any(array is None or array.maxshape[0] is not None for array in arrays) or "metadata" not in file:
            return False
        indices = file["labels/structure_indices"][...]
        return np.array_equal(indices, np.arange(len(file["structures/cells"])))
