"""Where the errors of forces are: at which elements, at forces of which length, at which angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsejax.models.force_field.force_metrics import angular_errors, checked_forces
from sparsejax.models.force_field.structure import SYMBOLS

MAGNITUDES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)
"""eV/A, borders of the groups of `errors_by_magnitude`."""

ANGLES = (0.0, 10.0, 30.0, 60.0, 90.0, 180.0)
"""Degrees, borders of the shares of `angle_shares`."""


class ErrorGroup(NamedTuple):
    """Errors of the forces on some of the atoms.

    Attributes:
      name: of the group.
      atoms: how many.
      rmse: eV/A, over components.
      mae: eV/A, over components.
      magnitude: eV/A, root mean square of the components of the reference: what predicting zeros costs.
      bias: eV/A, mean of predicted less reference lengths.
      angle: degrees, median between predicted and reference force; NaN where no pair has a direction.
    """

    name: str
    atoms: int
    rmse: float
    mae: float
    magnitude: float
    bias: float
    angle: float

    @property
    def relative(self) -> float:
        """RMSE over that of predicting zeros; NaN where all reference forces are zero."""
        return self.rmse / self.magnitude if self.magnitude > 0 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can carry; what is not defined is None."""
        fields = {**self._asdict(), "relative": self.relative}
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in fields.items()
        }


def errors_by_element(
    predicted: ArrayLike, reference: ArrayLike, species: ArrayLike
) -> tuple[ErrorGroup, ...]:
    """Errors of the forces on the atoms of each element.

    Args:
      predicted: (n, 3) eV/A.
      reference: (n, 3) eV/A.
      species: (n,) atomic numbers.

    Returns:
      groups named by symbol, in the order of atomic numbers.

    Raises:
      ValueError: shapes disagree, or there are no atoms.

    Example:
      >>> truth = [[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]
      >>> groups = errors_by_element([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]], truth, [8, 1, 1])
      >>> [(group.name, group.atoms, round(group.rmse, 3)) for group in groups]
      [('H', 2, 1.225), ('O', 1, 0.0)]
    """
    found, truth = checked_forces(predicted, reference)
    numbers = np.asarray(species)
    if numbers.shape != found.shape[:1]:
        raise ValueError(f"species must be {found.shape[:1]} atomic numbers, not of shape {numbers.shape}")
    return tuple(
        _group(SYMBOLS[number], found[numbers == number], truth[numbers == number])
        for number in np.unique(numbers)
    )


def errors_by_magnitude(
    predicted: ArrayLike, reference: ArrayLike, borders: Sequence[float] = MAGNITUDES
) -> tuple[ErrorGroup, ...]:
    """Errors of forces whose reference is between two lengths, the lower one included.

    Args:
      predicted: (n, 3) eV/A.
      reference: (n, 3) eV/A.
      borders: eV/A, ascending.

    Returns:
      the groups that are not empty, named such as "0.3 to 1".

    Raises:
      ValueError: shapes disagree, or there are no atoms.

    Example:
      >>> [group.name for group in errors_by_magnitude([[0.0, 0, 0]] * 2, [[0.2, 0, 0], [40.0, 0, 0]])]
      ['0.1 to 0.3', 'above 10']
    """
    found, truth = checked_forces(predicted, reference)
    place = np.digitize(np.linalg.norm(truth, axis=1), np.asarray(borders)[1:-1])
    return tuple(
        _group(_between(borders[number], borders[number + 1]), found[place == number], truth[place == number])
        for number in np.unique(place)
    )


def angle_shares(
    predicted: ArrayLike, reference: ArrayLike, borders: Sequence[float] = ANGLES
) -> dict[str, float]:
    """Shares of forces whose direction is wrong by so many degrees.

    Args:
      predicted: (n, 3) eV/A.
      reference: (n, 3) eV/A.
      borders: degrees, ascending.

    Returns:
      share of the pairs that both have a direction, by the name of the range; they add up to 1. Empty where
      there is no such pair.

    Raises:
      ValueError: shapes disagree, or there are no atoms.

    Example:
      >>> angle_shares([[1.0, 0, 0], [0, 1.0, 0]], [[1.0, 0.1, 0], [1.0, 0, 0]], (0, 45, 180))
      {'0 to 45': 0.5, '45 to 180': 0.5}
    """
    angles = angular_errors(predicted, reference)
    if not angles.size:
        return {}
    counts, _ = np.histogram(angles, np.asarray(borders))
    names = map(_between, borders, borders[1:])
    return {name: float(count / angles.size) for name, count in zip(names, counts, strict=False)}


def _group(name: str, found: NDArray[np.float64], truth: NDArray[np.float64]) -> ErrorGroup:
    errors, angles = found - truth, angular_errors(found, truth)
    return ErrorGroup(
        name=name,
        atoms=len(found),
        rmse=float(np.sqrt((errors**2).mean())),
        mae=float(np.abs(errors).mean()),
        magnitude=float(np.sqrt((truth**2).mean())),
        bias=float((np.linalg.norm(found, axis=1) - np.linalg.norm(truth, axis=1)).mean()),
        angle=float(np.median(angles)) if angles.size else float("nan"),
    )


def _between(low: float, high: float) -> str:
    return f"above {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
