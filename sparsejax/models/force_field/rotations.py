"""Averages over rotations, for networks whose energy changes when a structure is turned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sparsejax.models.force_field.prediction import VOIGT, Prediction
from sparsejax.models.force_field.structure import Structure

_SEED = 0


def rotations(average: Literal["cube"] | int | None) -> np.ndarray:
    """Rotation matrices to average over.

    Args:
      average: None for none, "cube" for the 24 rotations of a cube, or how many to draw, always the same.

    Returns:
      (r, 3, 3) float64.

    Raises:
      ValueError: anything else.

    Example:
      >>> rotations("cube").shape, float(np.linalg.det(rotations(5)).min().round(6))
      ((24, 3, 3), 1.0)
    """
    if average is None:
        return np.eye(3)[None]
    if average == "cube":
        return _of_cube()
    if isinstance(average, bool) or not isinstance(average, int) or average < 1:
        raise ValueError(f'rotation_average must be None, "cube" or a positive number, not {average!r}')
    normal = np.random.default_rng(_SEED).normal(size=(average, 4))
    w, x, y, z = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array(rows), -1, 0)


def _of_cube() -> np.ndarray:
    found = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), axes] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return np.array(found)


def rotated(structure: Structure, rotation: np.ndarray) -> Structure:
    """The structure with every position and lattice vector turned by (3, 3)."""
    cell = None if structure.cell is None else structure.cell @ rotation.T
    return structure._replace(positions=structure.positions @ rotation.T, cell=cell)


def averaged(predictions: Sequence[Prediction], turns: np.ndarray) -> Prediction:
    """The mean of predictions of turned structures, turned back; with the spread of the energy.

    Args:
      predictions: one per rotation.
      turns: (r, 3, 3).
    """
    energies = np.array([one.energy for one in predictions], np.float64)
    forces = np.mean([one.forces @ turn for one, turn in zip(predictions, turns, strict=True)], 0)
    stress = None
    if predictions[0].stress is not None:
        stress = np.mean(
            [_turned_back(one.stress, turn) for one, turn in zip(predictions, turns, strict=True)], 0
        )
    atomic = np.mean([one.atomic_energies for one in predictions], 0)
    return Prediction(energies.mean(), forces, stress, atomic, energies.std())


def _turned_back(stress: Any, turn: np.ndarray) -> np.ndarray:
    tensor = np.empty((3, 3))
    for value, (row, column) in zip(stress, VOIGT, strict=True):
        tensor[row, column] = tensor[column, row] = value
    back = turn.T @ tensor @ turn
    return np.array([back[row, column] for row, column in VOIGT])
