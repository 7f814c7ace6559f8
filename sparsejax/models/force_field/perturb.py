"""Structures near given ones, for a teacher to label: where molecules go when they vibrate, and beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def rattled(
    structures: Sequence[Any],
    copies: int,
    *,
    spread: tuple[float, float] = (0.05, 0.15),
    scale: tuple[float, float] = (0.95, 1.05),
    seed: int = 0,
) -> list[Any]:
    """Copies of structures, each scaled as a whole and then with every atom displaced at random.

    Displacements are normal, by a standard deviation that is drawn for each copy, so that small and large
    ones both occur.

    Args:
      structures: ``ase.Atoms``.
      copies: of each, one after another.
      spread: A, least and largest standard deviation of a coordinate.
      scale: least and largest factor of all positions, and of the cell.
      seed: a copy depends on it and on its place alone.

    Returns:
      ``len(structures) * copies`` ``ase.Atoms``, those of a structure side by side.

    Raises:
      ValueError: fewer than 1 copy, or a range that is empty or not positive.

    Example:
      >>> from ase.build import molecule
      >>> [atoms.get_chemical_formula() for atoms in rattled([molecule("H2O"), molecule("CO")], 2)]
      ['H2O', 'H2O', 'CO', 'CO']
    """
    if copies < 1:
        raise ValueError(f"at least 1 copy of each structure is needed, not {copies}")
    if not 0 <= spread[0] <= spread[1] or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"a range goes from a smaller to a larger number, not as {spread} or {scale}")
    return [
        _moved(atoms, spread, scale, np.random.default_rng((seed, number, copy)))
        for number, atoms in enumerate(structures)
        for copy in range(copies)
    ]


def _moved(
    atoms: Any, spread: tuple[float, float], scale: tuple[float, float], rng: np.random.Generator
) -> Any:
    moved = atoms.copy()
    factor, width = rng.uniform(*scale), rng.uniform(*spread)
    moved.set_cell(factor * atoms.cell.array)
    moved.positions = factor * atoms.positions + rng.normal(scale=width, size=atoms.positions.shape)
    return moved
