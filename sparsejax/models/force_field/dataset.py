"""Labelled structures in an HDF5 file, read one by one as they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.models.force_field.dataset_checks import open_file, readable, value_problems
from sparsejax.models.force_field.dataset_errors import Problem, refuse
from sparsejax.models.force_field.dataset_layouts import Layout, open_layout, structural_problems
from sparsejax.models.force_field.structure import Structure


class LabelledStructure(NamedTuple):
    """Atoms and what is known about them.

    Attributes:
      structure: species, positions, cell, pbc.
      energy: eV.
      forces: (n, 3) eV/A.
      stress: (6,) eV/A^3, positive under tension, in the order xx, yy, zz, yz, xz, xy; None where unknown.
    """

    structure: Structure
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None


class ForceFieldDataset(Sequence[LabelledStructure]):
    """A file of labelled structures, in the published layout or with a group per structure.

    Opening looks at names, dtypes, shapes and borders; the values of a structure are looked at when it is
    read. `check_dataset` looks at everything. The file stays open until `close`; a pickled copy opens it
    anew.

    Args:
      path: HDF5 file.
      indices: of the structures to show, in their order; all if not given. See `split_indices`.
      in_memory: read everything now, for a file that fits.

    Raises:
      DatasetError: the file is missing, damaged, or of no known layout.
      IndexError: an index is out of range.
      ModuleNotFoundError: h5py is missing (extra ``force-field``).

    Source: specs/force_field.md section 5.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        in_memory: bool = False,
    ):
        self.path = Path(path)
        self._in_memory = in_memory
        self._file: Any = None
        self._layout: Layout | None = None
        count = len(self._opened().sizes)
        self.indices = np.arange(count) if indices is None else np.asarray(indices, np.int64).reshape(-1)
        if len(self.indices) and not (-count <= self.indices.min() and self.indices.max() < count):
            raise IndexError(f"{self.path}: indices reach beyond its {count} structures")
        self.indices = self.indices % max(count, 1)

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.indices)

    def __getitem__(self, number: Any) -> Any:
        """A structure with its labels, or for a slice a data set of the same file.

        Raises:
          DatasetError: it is damaged, or holds NaN.
        """
        if isinstance(number, slice):
            return self.subset(np.arange(len(self))[number])
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path}: there is no structure {number} of {len(self)}")
        layout, of = self._opened(), int(self.indices[number])
        with readable(self.path, f"structure {of}"):
            structure, labels = layout.structure(of), layout.labels(of)
        refuse(self.path, value_problems(layout, of, structure, labels))
        return LabelledStructure(structure, *labels)

    def __iter__(self) -> Iterator[LabelledStructure]:
        """All structures, in order."""
        return (self[number] for number in range(len(self)))

    @property
    def sizes(self) -> np.ndarray:
        """(s,) atoms of each structure; no structure is read."""
        return self._opened().sizes[self.indices]

    @property
    def energies(self) -> np.ndarray:
        """(s,) float64 eV; no structure is read.

        Raises:
          DatasetError: one of them is NaN or infinite.
        """
        layout = self._opened()
        with readable(self.path, "energies"):
            energies = layout.energies()[self.indices]
        bad = self.indices[~np.isfinite(energies)]
        refuse(self.path, [Problem(layout.place(of, "energy"), "is no finite number") for of in bad])
        return energies

    def species(self, number: int) -> np.ndarray:
        """(n,) atomic numbers of a structure, whatever its labels are."""
        of = int(self.indices[number])
        with readable(self.path, f"structure {of}"):
            return self._opened().structure(of).species

    def subset(self, numbers: Sequence[int] | np.ndarray) -> ForceFieldDataset:
        """Some of the structures shown here, as a data set of its own; what is in memory is shared."""
        other = copy.copy(self)
        other.indices = self.indices[np.asarray(numbers, np.int64)]
        if not self._in_memory:
            other._file = other._layout = None  # so that each closes its own
        return other

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = self._layout = None

    def __enter__(self) -> ForceFieldDataset:
        """The data set itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_layout": None}

    def _opened(self) -> Layout:
        if self._layout is None:
            file = open_file(self.path)
            try:
                with readable(self.path, "its structure"):
                    refuse(self.path, structural_problems(file))
                    self._layout = open_layout(file, in_memory=self._in_memory)
            finally:
                if self._in_memory or self._layout is None:
                    file.close()
                else:
                    self._file = file
        return self._layout


def split_indices(
    count: int,
    fractions: Sequence[float] = (0.9, 0.1),
    *,
    seed: int = 42,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Cut a data set into parts at random, the same way for the same seed everywhere.

    ``numpy.random.default_rng(seed).permutation(count)`` is cut at ``int(count * fraction)``; what rounding
    leaves over goes to the last part.

    Args:
      count: structures.
      fractions: of the parts; they add up to 1.
      seed: of the permutation.
      groups: (count,) labels of what belongs together, such as the molecule that a structure is a distorted
        copy of; then groups are permuted and cut instead, so that no group is in two parts.

    Returns:
      indices of each part, in the order of the permutation; of groups, in the order of the data set.

    Raises:
      ValueError: fractions that do not add up to 1, or groups of another number.

    Example:
      >>> train, validation = split_indices(10)
      >>> train
      array([5, 6, 0, 7, 3, 2, 4, 9, 1])
      >>> parts = split_indices(4, (0.5, 0.5), groups=["a", "b", "b", "a"])
      >>> sorted(part.tolist() for part in parts)
      [[0, 3], [1, 2]]
    """
    if not fractions or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must be positive and add up to 1, not {tuple(fractions)}")
    if groups is not None:
        names, of = np.unique(np.asarray(groups), return_inverse=True)
        if len(of) != count:
            raise ValueError(f"{len(of)} groups are given for {count} structures")
        parts = split_indices(len(names), fractions, seed=seed)
        return tuple(np.flatnonzero(np.isin(of, part)) for part in parts)
    order = np.random.default_rng(seed).permutation(count)
    # The tiny surplus keeps products such as 0.7 + 0.1 from falling just short of a whole number.
    cuts = [int(count * share + 1e-9) for share in np.cumsum(fractions)[:-1]]
    return tuple(np.split(order, cuts))
