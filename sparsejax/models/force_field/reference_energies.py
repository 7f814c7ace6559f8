"""Energies of single atoms that explain most of a data set's energies, by least squares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.models.force_field.structure import SYMBOLS


class ReferenceEnergies(NamedTuple):
    """A fit.

    Attributes:
      energies: (max_z + 1,) float64 eV, by atomic number; 0 for elements that do not occur.
      elements: atomic numbers that occur, ascending.
      rank: of the composition table; below the number of elements, only sums of these energies have a
        meaning, and the smallest ones were taken.
      residual_rmse: eV of a structure, what the fit leaves to learn.
      residual_mae: eV of a structure.
      residual_per_atom_rmse: eV.
      residual_per_atom_mae: eV.
      energy_std: eV of a structure, before the fit.
    """

    energies: np.ndarray
    elements: tuple[int, ...]
    rank: int
    residual_rmse: float
    residual_mae: float
    residual_per_atom_rmse: float
    residual_per_atom_mae: float
    energy_std: float


def fit_reference_energies(
    species: Iterable[ArrayLike],
    energies: ArrayLike,
    max_z: int,
    *,
    regularisation: float = 0.0,
    per_atom: bool = True,
) -> ReferenceEnergies:
    """An energy per element, so that their sums come as close to the energies as can be.

    Args:
      species: (n,) atomic numbers of each structure.
      energies: (s,) eV of the structures.
      max_z: largest atomic number of the table.
      regularisation: pulls the energies of single atoms toward their overall mean; with 0, elements that
        always occur together share their energy evenly.
      per_atom: structures count by their errors per atom, as in the loss of that name; otherwise by their
        whole errors, and large structures decide.

    Raises:
      ValueError: no structures, another number of energies, NaN, an element beyond the table, an empty
        structure, or a negative regularisation.

    Example:
      >>> fit = fit_reference_energies([[1, 1], [8, 1, 1], [8, 8]], [-2.0, -12.0, -20.0], max_z=10)
      >>> fit.energies[[1, 8]].round(6)
      array([ -1., -10.])
      >>> fit.residual_rmse < 1e-9
      True

    Source: specs/force_field.md section 2, number 7.
    """
    if not regularisation >= 0:
        raise ValueError(f"regularisation must not be negative, and is {regularisation!r}")
    counts = _counts(species, max_z)
    truth = np.asarray(energies, np.float64)
    if truth.shape != (len(counts),) or not len(counts):
        raise ValueError(f"{len(counts)} structures need as many energies, at least 1, not {truth.shape}")
    if not np.isfinite(truth).all():
        raise ValueError(f"energy {int(np.argmin(np.isfinite(truth)))} is no finite number")
    elements = np.flatnonzero(counts.any(axis=0))
    sizes = counts.sum(axis=1)
    scale = 1 / sizes if per_atom else np.ones(len(sizes))
    # Around the energy of an average atom: what the data do not settle then stays near that, not near 0.
    centre = float((truth * scale**2 * sizes).sum() / (sizes**2 * scale**2).sum())
    table, rest = counts[:, elements] * scale[:, None], (truth - centre * sizes) * scale
    solution, _, rank, _ = np.linalg.lstsq(table, rest)
    if regularisation:
        ridge = np.sqrt(regularisation) * np.eye(len(elements))
        solution = np.linalg.lstsq(np.concatenate([table, ridge]), np.concatenate([rest, 0 * elements]))[0]
    found = np.zeros(max_z + 1)
    found[elements] = centre + solution
    residual = truth - counts @ found
    return ReferenceEnergies(
        found,
        tuple(map(int, elements)),
        int(rank),
        *_sizes(residual),
        *_sizes(residual / sizes),
        float(truth.std()),
    )


def reference_sum(energies: np.ndarray, species: ArrayLike) -> float:
    """Energy of a structure's atoms by themselves: eV, in float64.

    Args:
      energies: (max_z + 1,) eV of `ReferenceEnergies`.
      species: (n,) atomic numbers.

    Example:
      >>> reference_sum(np.array([0.0, -1.0, -3.0]), [1, 1, 2])
      -5.0
    """
    return float(np.asarray(energies, np.float64)[np.asarray(species)].sum())


def _counts(species: Iterable[ArrayLike], max_z: int) -> np.ndarray:
    """(s, max_z + 1) atoms of each element in each structure."""
    rows = []
    for number, atoms in enumerate(species):
        of = np.asarray(atoms)
        if not of.size:
            raise ValueError(f"structure {number} has no atoms")
        if of.min() < 1 or of.max() > max_z:
            outside = of[(of < 1) | (of > max_z)][0]
            name = SYMBOLS[outside] if 0 < outside < len(SYMBOLS) else f"Z={outside}"
            raise ValueError(f"structure {number} holds {name}; the table goes up to max_z={max_z}")
        rows.append(np.bincount(of, minlength=max_z + 1))
    return np.array(rows, np.float64).reshape(len(rows), max_z + 1)


def _sizes(residual: np.ndarray) -> tuple[float, float]:
    return float(np.sqrt((residual**2).mean())), float(np.abs(residual).mean())
