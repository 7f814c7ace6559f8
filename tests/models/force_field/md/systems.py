"""Small systems of the Morse potential that the tests of molecular dynamics share."""

from __future__ import annotations

from typing import Any

import numpy as np

SPACING = 3.385
"""A, edge of the cubic cell of the crystal at which it is without pressure."""


def cluster(speed: float = 0.02) -> Any:
    """Five carbon atoms near the minimum, moving, without momentum; `ase.Atoms`."""
    from ase import Atoms

    random = np.random.default_rng(0)
    places = 2.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    atoms = Atoms("C5", places + 0.1 * random.normal(size=(5, 3)))
    return _moving(atoms, speed, random)


def crystal(speed: float = 0.02) -> Any:
    """32 copper atoms in a periodic cell, rattled and moving; `ase.Atoms`."""
    from ase.build import bulk

    atoms = bulk("Cu", "fcc", a=SPACING, cubic=True) * (2, 2, 2)
    atoms.rattle(0.02, seed=1)
    return _moving(atoms, speed, np.random.default_rng(1))


def _moving(atoms: Any, speed: float, random: np.random.Generator) -> Any:
    velocities = speed * random.normal(size=(len(atoms), 3))
    atoms.set_velocities(velocities - velocities.mean(axis=0))
    return atoms
