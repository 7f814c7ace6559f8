"""The two HDF5 layouts of labelled structures: all atoms in a row, as published, or a group per structure.

::

  structures/  atomic_numbers (atoms,)   positions (atoms, 3)   atomic_numbers_splits (structures + 1,)
               cells (structures, 3, 3)  pbc (structures, 3)
  labels/      energy (labels,)          forces (rows, 3)       forces_splits (labels + 1,)
               stress (labels, 6)        stress_mask (labels,)  structure_indices (labels,)

or ``structures/<i>/{species, positions, cell, pbc, energy, forces}``, and perhaps ``stress``.

Source: specs/force_field.md section 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from sparsejax.models.force_field.dataset_errors import Problem
from sparsejax.models.force_field.dataset_storage import link_problem, storage_problem
from sparsejax.models.force_field.structure import Structure

_REAL, _WHOLE, _TRUTH = "f", "iu", "biu"
_KINDS = {_REAL: "floating-point numbers", _WHOLE: "integers", _TRUTH: "booleans"}


class Labels(NamedTuple):
    """What is known about a structure.

    Attributes:
      energy: eV.
      forces: (n, 3) eV/A, in the dtype of the file.
      stress: (6,) eV/A^3, or None where it is not labelled.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


class Field(NamedTuple):
    """An array of a layout.

    Attributes:
      place: its path.
      kinds: of NumPy dtypes that it may have.
      shape: numbers, or names of numbers that all arrays agree on.
      required: whether a file without it is refused.
    """

    place: str
    kinds: str
    shape: tuple[int | str, ...]
    required: bool = True


RAGGED = (
    Field("structures/atomic_numbers", _WHOLE, ("atoms",)),
    Field("structures/atomic_numbers_splits", _WHOLE, ("structures + 1",)),
    Field("structures/positions", _REAL, ("atoms", 3)),
    Field("structures/cells", _REAL, ("structures", 3, 3)),
    Field("structures/pbc", _TRUTH, ("structures", 3)),
    Field("labels/energy", _REAL, ("labels",)),
    Field("labels/forces", _REAL, ("rows of forces", 3)),
    Field("labels/forces_splits", _WHOLE, ("labels + 1",)),
    Field("labels/stress", _REAL, ("labels", 6), required=False),
    Field("labels/stress_mask", _TRUTH, ("labels",), required=False),
    Field("labels/structure_indices", _WHOLE, ("labels",), required=False),
)
"""Arrays of the published layout. Without structure_indices, labels are in the order of the structures."""

GROUPED = (
    Field("species", _WHOLE, ("atoms",)),
    Field("positions", _REAL, ("atoms", 3)),
    Field("energy", _REAL, ()),
    Field("forces", _REAL, ("atoms", 3)),
    Field("cell", _REAL, (3, 3), required=False),
    Field("pbc", _TRUTH, (3,), required=False),
    Field("stress", _REAL, (6,), required=False),
)
"""Arrays of each group of the other layout."""


class Layout(Protocol):
    """Access to the labelled structures of an open file, by their numbers.

    Attributes:
      sizes: (s,) int64, atoms of each.
    """

    sizes: np.ndarray

    def structure(self, number: int) -> Structure:
        """Atoms and cell."""
        ...

    def labels(self, number: int) -> Labels:
        """Energy, forces and stress."""
        ...

    def energies(self) -> np.ndarray:
        """(s,) float64, all energies."""
        ...

    def place(self, number: int, name: str) -> str:
        """Where one of ``species``, ``positions``, ``cell``, ``energy``, ``forces``, ``stress`` is stored."""
        ...


class RaggedLayout:
    """The published layout: arrays over all atoms, with the borders between structures.

    Args:
      file: open, without structural problems.
      in_memory: read everything at once.
    """

    def __init__(self, file: Any, *, in_memory: bool = False):
        present = [field.place for field in RAGGED if field.place in file]
        large = {"structures/atomic_numbers", "structures/positions", "labels/forces"}
        # One number or row per structure: small enough to hold, and slow to read one by one.
        self._arrays = {
            place: file[place] if place in large and not in_memory else file[place][...] for place in present
        }
        count = len(self._arrays["labels/energy"])
        self._of = self._arrays.get("labels/structure_indices", np.arange(count))
        self._atoms = self._arrays["structures/atomic_numbers_splits"].astype(np.int64)
        self._rows = self._arrays["labels/forces_splits"].astype(np.int64)
        self.sizes = np.diff(self._atoms)[self._of]

    def structure(self, number: int) -> Structure:
        """Atoms and cell."""
        of, arrays = self._of[number], self._arrays
        atoms = slice(self._atoms[of], self._atoms[of + 1])
        return _structure(
            arrays["structures/atomic_numbers"][atoms],
            arrays["structures/positions"][atoms],
            arrays["structures/cells"][of],
            arrays["structures/pbc"][of],
        )

    def labels(self, number: int) -> Labels:
        """Energy, forces and stress."""
        arrays = self._arrays
        forces = arrays["labels/forces"][self._rows[number] : self._rows[number + 1]]
        mask, stress = arrays.get("labels/stress_mask"), None
        if "labels/stress" in arrays and (mask is None or mask[number]):
            stress = np.array(arrays["labels/stress"][number])
        return Labels(float(arrays["labels/energy"][number]), forces, stress)

    def energies(self) -> np.ndarray:
        """(s,) float64, all energies."""
        return self._arrays["labels/energy"].astype(np.float64)

    def place(self, number: int, name: str) -> str:
        """Where a quantity is stored; for those of atoms, the first row."""
        of = self._of[number]
        path, row = {
            "species": ("structures/atomic_numbers", self._atoms[of]),
            "positions": ("structures/positions", self._atoms[of]),
            "cell": ("structures/cells", of),
            "energy": ("labels/energy", number),
            "forces": ("labels/forces", self._rows[number]),
            "stress": ("labels/stress", number),
        }[name]
        return f"{path}[{row}]"


class GroupedLayout:
    """A group for each structure, by its number.

    Args:
      file: open, without structural problems.
      in_memory: read everything at once.
    """

    def __init__(self, file: Any, *, in_memory: bool = False):
        self._groups: list[Any] = [file["structures"][name] for name in group_names(file)]
        if in_memory:
            self._groups = [{name: group[name][...] for name in group} for group in self._groups]
        self._names = group_names(file)
        self.sizes = np.array([len(group["species"]) for group in self._groups], np.int64)

    def structure(self, number: int) -> Structure:
        """Atoms and cell."""
        group = self._groups[number]
        cell = group["cell"][...] if "cell" in group else np.zeros((3, 3))
        pbc = group["pbc"][...] if "pbc" in group else np.zeros(3, bool)
        return _structure(group["species"][...], group["positions"][...], cell, pbc)

    def labels(self, number: int) -> Labels:
        """Energy, forces and stress."""
        group = self._groups[number]
        stress = np.array(group["stress"][...]) if "stress" in group else None
        return Labels(float(np.reshape(group["energy"][...], ())), group["forces"][...], stress)

    def energies(self) -> np.ndarray:
        """(s,) float64, all energies."""
        return np.array([float(np.reshape(group["energy"][...], ())) for group in self._groups])

    def place(self, number: int, name: str) -> str:
        """Where a quantity is stored."""
        return f"structures/{self._names[number]}/{name}"


def open_layout(file: Any, *, in_memory: bool = False) -> Layout:
    """Access to a file by the layout that it has.

    Args:
      file: open, without structural problems.
      in_memory: read everything at once.
    """
    return (GroupedLayout if is_grouped(file) else RaggedLayout)(file, in_memory=in_memory)


def is_grouped(file: Any) -> bool:
    """Whether the file has the layout of a group per structure, broken or not."""
    import h5py

    structures = file.get("structures")
    if not isinstance(structures, h5py.Group) or "labels" in file:
        return False
    return bool(len(structures)) and all(name.isdigit() for name in structures)


def group_names(file: Any) -> list[str]:
    """Names of the groups, by number."""
    return sorted(file["structures"], key=int)


def structural_problems(file: Any) -> list[Problem]:
    """What keeps a file from being read at all: missing arrays, dtypes, shapes, borders.

    Args:
      file: open HDF5 file.

    Returns:
      problems in the order of the layout; no value of an atom, and no label, is looked at.
    """
    linked = [problem for name in file if (problem := link_problem(file, name))]
    if linked:
        return linked
    if is_grouped(file):
        return [
            problem for name in group_names(file) for problem in _group_problems(file["structures"], name)
        ]
    problems, counts = _field_problems(file, RAGGED)
    if problems:
        return problems
    return _border_problems(file, counts)


def _group_problems(structures: Any, name: str) -> list[Problem]:
    import h5py

    if linked := link_problem(structures, name):
        return [Problem(f"structures/{linked.place}", linked.text)]
    if not isinstance(structures[name], h5py.Group):
        return [Problem(f"structures/{name}", "is an array; each structure is a group")]
    problems, _ = _field_problems(structures[name], GROUPED)
    return [Problem(f"structures/{name}/{problem.place}", problem.text) for problem in problems]


def _field_problems(group: Any, fields: tuple[Field, ...]) -> tuple[list[Problem], dict[str, int]]:
    """Missing arrays, wrong dtypes and shapes, and the numbers that the shapes give names to."""
    import h5py

    problems: list[Problem] = []
    counts: dict[str, int] = {}
    for field in fields:
        if linked := link_problem(group, field.place):
            problems.append(linked)
            continue
        found = group.get(field.place)
        if found is None:
            if field.required:
                problems.append(Problem(field.place, "is missing"))
            continue
        if not isinstance(found, h5py.Dataset):
            problems.append(Problem(field.place, "is a group, not an array"))
        elif found.dtype.kind not in field.kinds:
            problems.append(Problem(field.place, f"must hold {_KINDS[field.kinds]}, not {found.dtype}"))
        elif stored := storage_problem(found):
            problems.append(Problem(field.place, stored))
        else:
            problems += _shape_problems(field, found.shape, counts)
    return problems, counts


def _shape_problems(field: Field, shape: tuple[int, ...] | None, counts: dict[str, int]) -> list[Problem]:
    if shape == (1,) and field.shape == ():
        return []
    if shape is not None and len(shape) == len(field.shape):
        wanted = [_wanted(size, want, counts) for size, want in zip(shape, field.shape, strict=True)]
        if shape == tuple(wanted):
            return []
    names = ", ".join(map(str, field.shape))
    known = [f"{name} = {counts[name]}" for name in counts if name in names]
    where = f" with {', '.join(known)}" if known else ""
    return [Problem(field.place, f"must be of shape ({names}){where}, not {shape}")]


def _wanted(size: int, want: int | str, counts: dict[str, int]) -> int:
    """The number that a name stands for; the first array that has it says what it is."""
    if isinstance(want, int):
        return want
    name, _, more = want.partition(" + ")
    extra = int(more or 0)
    return counts.setdefault(name, max(size - extra, 0)) + extra


def _border_problems(file: Any, counts: dict[str, int]) -> list[Problem]:
    """Of the ragged layout: borders that are no borders, indices of no structure, forces of other sizes."""
    borders = {
        "structures/atomic_numbers_splits": counts["atoms"],
        "labels/forces_splits": counts["rows of forces"],
    }
    sizes = {}
    for place, end in borders.items():
        splits = file[place][...].astype(np.int64)
        sizes[place] = np.diff(splits)
        if splits[0] != 0 or splits[-1] != end:
            return [Problem(place, f"must run from 0 to {end}, not from {splits[0]} to {splits[-1]}")]
        if (sizes[place] < 0).any():
            return [Problem(f"{place}[{int(np.argmax(sizes[place] < 0)) + 1}]", "is below the one before")]
    atoms, rows = sizes.values()
    if "labels/structure_indices" in file:
        of = file["labels/structure_indices"][...].astype(np.int64)
        if (bad := (of < 0) | (of >= len(atoms))).any():
            where = int(np.argmax(bad))
            text = f"is {of[where]}; there are {len(atoms)} structures"
            return [Problem(f"labels/structure_indices[{where}]", text)]
    elif len(rows) != len(atoms):
        text = f"{len(rows)} labels for {len(atoms)} structures need labels/structure_indices"
        return [Problem("labels", text)]
    else:
        of = np.arange(len(rows))
    if (bad := rows != atoms[of]).any():
        where = int(np.argmax(bad))
        text = f"has {rows[where]} rows; structure {of[where]} has {atoms[of[where]]} atoms"
        return [Problem(f"labels/forces (label {where})", text)]
    return []


def _structure(species: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Structure:
    return Structure(
        np.asarray(species, np.int32),
        np.asarray(positions, np.float64),
        np.asarray(cell, np.float64) if np.any(cell) else None,
        np.asarray(pbc, bool),
    )
