"""How atoms move: deviation from a first frame, displacements, bonds, temperature, stability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

STABLE = 2.0
"""A, that no atom of a stable run moves further than from its first place."""


class Displacements(NamedTuple):
    """From the first frame.

    Attributes:
      displacements: (f, n, 3) A.
      magnitudes: (f, n) A.
      max_per_frame: (f,) A.
      mean_per_frame: (f,) A.
      per_atom_max: (n,) A.
    """

    displacements: NDArray[np.float64]
    magnitudes: NDArray[np.float64]
    max_per_frame: NDArray[np.float64]
    mean_per_frame: NDArray[np.float64]
    per_atom_max: NDArray[np.float64]


def rmsd(
    positions: ArrayLike, reference: ArrayLike | None = None, *, align: bool = False
) -> NDArray[np.float64]:
    """Root of the mean square distance of atoms from their places in a reference, frame by frame.

    Args:
      positions: (f, n, 3) A, not wrapped into a cell.
      reference: (n, 3) A; the first frame if not given.
      align: shift and turn each frame onto the reference first. The original turned frames the wrong way.

    Returns:
      (f,) A.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
      >>> turned = square @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
      >>> bool(rmsd([square, turned], align=True)[1] < 1e-12)
      True

    Source: specs/force_field.md section 6; section 2, defect 11.
    """
    frames = _frames(positions)
    goal = frames[0] if reference is None else np.asarray(reference, np.float64)
    if goal.shape != frames.shape[1:]:
        raise ValueError(f"a reference of shape {goal.shape} does not fit frames of {frames.shape[1:]}")
    if align:
        frames = np.stack([aligned(frame, goal) for frame in frames])
    return np.sqrt(((frames - goal) ** 2).sum(axis=-1).mean(axis=-1))


def aligned(positions: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Positions shifted and turned, never mirrored, to be as close to the reference as can be.

    Args:
      positions: (n, 3) A.
      reference: (n, 3) A.

    Returns:
      (n, 3) A.

    Example:
      >>> aligned([[0.0, 0, 0], [0, 2, 0]], [[1.0, 0, 0], [3, 0, 0]]).round(6) + 0.0
      array([[1., 0., 0.],
             [3., 0., 0.]])

    Source: Kabsch, Acta Crystallographica A 32, 922 (1976).
    """
    found, goal = np.asarray(positions, np.float64), np.asarray(reference, np.float64)
    centred, centre = found - found.mean(axis=0), goal.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ (goal - centre))
    handed = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return centred @ (left * handed) @ right + centre


def displacements(positions: ArrayLike) -> Displacements:
    """How far each atom is from its first place.

    Args:
      positions: (f, n, 3) A, not wrapped into a cell.

    Raises:
      ValueError: they are no frames.

    Example:
      >>> displacements([[[0.0, 0, 0]], [[0, 3, 4]]]).per_atom_max
      array([5.])
    """
    frames = _frames(positions)
    moves = frames - frames[0]
    sizes = np.linalg.norm(moves, axis=-1)
    return Displacements(moves, sizes, sizes.max(axis=1), sizes.mean(axis=1), sizes.max(axis=0))


def bond_lengths(positions: ArrayLike, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Distances of pairs of atoms, frame by frame.

    Args:
      positions: (f, n, 3) A, not wrapped into a cell.
      pairs: p pairs of indices.

    Returns:
      (f, p) A.

    Raises:
      ValueError: no frames, or an index out of range.

    Example:
      >>> bond_lengths([[[0.0, 0, 0], [0, 0, 1.1]]], [(0, 1)])
      array([[1.1]])
    """
    frames = _frames(positions)
    ends = np.asarray(pairs, int).reshape(-1, 2)
    if ends.size and not (ends.min() >= 0 and ends.max() < frames.shape[1]):
        raise ValueError(f"pairs name atoms beyond the {frames.shape[1]} of a frame")
    return np.linalg.norm(frames[:, ends[:, 0]] - frames[:, ends[:, 1]], axis=-1)


def is_stable(positions: ArrayLike, limit: float = STABLE) -> bool:
    """Whether no atom ever moves further than the limit from its first place.

    Args:
      positions: (f, n, 3) A, not wrapped into a cell.
      limit: A.

    Raises:
      ValueError: they are no frames.

    Example:
      >>> is_stable([[[0.0, 0, 0]], [[0, 0, 1.9]]])
      True
    """
    return bool(displacements(positions).max_per_frame.max() < limit)


def temperature_evolution(temperature: ArrayLike) -> dict[str, float]:
    """Mean, spread, ends and extremes of a run's temperature.

    Args:
      temperature: (f,) K.

    Returns:
      ``mean``, ``std``, ``initial``, ``final``, ``min``, ``max`` and ``drift`` (final - initial), in K.

    Raises:
      ValueError: no frames.

    Example:
      >>> temperature_evolution([300.0, 320.0])["drift"]
      20.0
    """
    series = np.asarray(temperature, np.float64)
    if series.ndim != 1 or not series.size:
        raise ValueError(f"temperature must be a series, not of shape {series.shape}")
    return {
        "mean": float(series.mean()),
        "std": float(series.std()),
        "initial": float(series[0]),
        "final": float(series[-1]),
        "min": float(series.min()),
        "max": float(series.max()),
        "drift": float(series[-1] - series[0]),
    }


def trajectory_summary(positions: ArrayLike, temperature: ArrayLike | None = None) -> str:
    """A few lines about a run, for people.

    Args:
      positions: (f, n, 3) A, not wrapped into a cell.
      temperature: (f,) K, if known.

    Raises:
      ValueError: they are no frames.

    Example:
      >>> print(trajectory_summary([[[0.0, 0, 0]], [[0, 0, 1.5]]]))
      2 frames of 1 atom
      deviation from the first frame: 1.500 A at the end
      largest displacement: 1.500 A, stable (below 2 A)
    """
    frames = _frames(positions)
    largest = displacements(frames).max_per_frame.max()
    number = frames.shape[1]
    lines = [
        f"{len(frames)} frames of {number} atom{'' if number == 1 else 's'}",
        f"deviation from the first frame: {rmsd(frames)[-1]:.3f} A at the end",
        f"largest displacement: {largest:.3f} A, "
        + (f"stable (below {STABLE:g} A)" if is_stable(frames) else f"not stable (beyond {STABLE:g} A)"),
    ]
    if temperature is not None:
        found = temperature_evolution(temperature)
        spread, ends = "{mean:.0f} +- {std:.0f} K", "{min:.0f} to {max:.0f} K"
        lines.append(f"temperature: {spread}, {ends}".format(**found))
    return "\n".join(lines)


def _frames(positions: ArrayLike) -> NDArray[np.float64]:
    frames = np.asarray(positions, np.float64)
    if frames.ndim != 3 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"positions must be frames (f, n, 3), not of shape {frames.shape}")
    return frames
