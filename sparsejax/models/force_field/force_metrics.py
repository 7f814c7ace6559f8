"""How far predicted forces are from true ones, over a whole data set on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIRECTED = 1e-6
"""eV/A; shorter forces have no direction, and nothing is relative to them."""

_PERCENTILES = (50, 75, 90, 95)

RMSE_LIMIT, MAE_LIMIT, ANGLE_LIMIT, R_SQUARED_LIMIT = 0.2, 0.15, 15.0, 0.9
"""Of the published verdict: eV/A, eV/A, degrees, none."""


class AtomForceErrors(NamedTuple):
    """Errors atom by atom.

    Attributes:
      rmse: (*b) eV/A over the three components.
      mae: (*b) eV/A.
      magnitude_error: (*b) eV/A, difference of lengths without sign.
      angular_error: (*b) degrees; 0 where one of the forces has no direction.
    """

    rmse: NDArray[np.float64]
    mae: NDArray[np.float64]
    magnitude_error: NDArray[np.float64]
    angular_error: NDArray[np.float64]


def force_metrics(predicted: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """The published force metrics, each over all atoms given at once.

    Args:
      predicted: (*b, 3) eV/A.
      reference: (*b, 3) eV/A.

    Returns:
      ``rmse``, ``mae`` over components; ``rmse_x`` to ``rmse_z``; ``mag_rmse``, ``mag_mae`` of lengths and
      ``mag_relative_error`` (%, mean over forces above 1e-6 eV/A); ``angular_error_median`` and ``ang_p50``,
      ``p75``, ``p90`` and ``p95`` (degrees, over pairs that both have a direction); ``cosine_similarity``
      (mean over the same pairs); ``pearson_r`` and ``r_squared`` of components; ``passed``, the published
      verdict. What is not defined, such as an angle where all forces are zero, is NaN.

    Raises:
      ValueError: shapes disagree, do not end in 3, or hold nothing.

    Example:
      >>> found = force_metrics([[1.0, 0.0, 0.1]], [[1.0, 0.0, 0.0]])
      >>> round(found["mae"], 4), round(found["angular_error_median"], 2)
      (0.0333, 5.71)

    Source: specs/force_field.md section 6.
    """
    found, truth = checked_forces(predicted, reference)
    errors = found - truth
    lengths, true_lengths = np.linalg.norm(found, axis=-1), np.linalg.norm(truth, axis=-1)
    length_errors, sized = np.abs(lengths - true_lengths), true_lengths > DIRECTED
    cosines = _cosines(found, truth)
    angles = np.degrees(np.arccos(cosines))
    metrics = {
        "rmse": _rms(errors),
        "mae": float(np.abs(errors).mean()),
        **{f"rmse_{name}": _rms(errors[:, axis]) for axis, name in enumerate("xyz")},
        "mag_rmse": _rms(length_errors),
        "mag_mae": float(length_errors.mean()),
        "mag_relative_error": 100 * _mean(length_errors[sized] / true_lengths[sized]),
        "angular_error_median": float(np.median(angles)) if angles.size else np.nan,
        **{f"ang_p{share}": _percentile(angles, share) for share in _PERCENTILES},
        "cosine_similarity": _mean(cosines),
        "pearson_r": pearson(found.ravel(), truth.ravel()),
        "r_squared": _r_squared(found.ravel(), truth.ravel()),
    }
    return metrics | {"passed": _passed(metrics)}


def force_errors_by_atom(predicted: ArrayLike, reference: ArrayLike) -> AtomForceErrors:
    """Errors of each force by itself.

    Args:
      predicted: (*b, 3) eV/A.
      reference: (*b, 3) eV/A.

    Raises:
      ValueError: as `force_metrics`.

    Example:
      >>> force_errors_by_atom([[1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]).angular_error.round(3)
      array([45.])
    """
    found, truth = checked_forces(predicted, reference)
    shape, errors = np.shape(predicted)[:-1], found - truth
    directed = _directed(found, truth)
    angles = np.zeros(len(found))
    angles[directed] = np.degrees(np.arccos(_cosines(found, truth)))
    lengths = np.abs(np.linalg.norm(found, axis=-1) - np.linalg.norm(truth, axis=-1))
    rmse, mae = np.sqrt((errors**2).mean(axis=-1)), np.abs(errors).mean(axis=-1)
    return AtomForceErrors(*(part.reshape(shape) for part in (rmse, mae, lengths, angles)))


def angular_errors(predicted: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Degrees between forces, for the pairs that both have a direction, in order.

    Args:
      predicted: (*b, 3) eV/A.
      reference: (*b, 3) eV/A.

    Returns:
      (at most the product of *b,).

    Raises:
      ValueError: as `force_metrics`.

    Example:
      >>> angular_errors([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
      array([90.])
    """
    return np.degrees(np.arccos(_cosines(*checked_forces(predicted, reference))))


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of two series; NaN where one of them does not vary."""
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else np.nan


def checked_forces(
    predicted: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides as (n, 3), one row per atom.

    Args:
      predicted: (*b, 3) eV/A.
      reference: (*b, 3) eV/A.

    Raises:
      ValueError: shapes disagree, do not end in 3, or hold nothing.

    Example:
      >>> checked_forces(np.zeros((2, 4, 3)), np.ones((2, 4, 3)))[1].shape
      (8, 3)
    """
    found, truth = np.asarray(predicted, np.float64), np.asarray(reference, np.float64)
    if found.shape != truth.shape or not found.ndim or found.shape[-1] != 3 or not found.size:
        raise ValueError(f"forces must be (..., 3) alike on both sides, not {found.shape} and {truth.shape}")
    return found.reshape(-1, 3), truth.reshape(-1, 3)


def _directed(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (np.linalg.norm(found, axis=-1) > DIRECTED) & (np.linalg.norm(truth, axis=-1) > DIRECTED)


def _cosines(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the pairs that both have a direction."""
    directed = _directed(found, truth)
    found, truth = found[directed], truth[directed]
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(truth, axis=-1)
    return np.clip((found * truth).sum(axis=-1) / norms, -1, 1)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else np.nan


def _percentile(values: NDArray[np.float64], share: float) -> float:
    return float(np.percentile(values, share)) if values.size else np.nan


def _r_squared(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    spread = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((found - truth) ** 2).sum() / spread) if spread > 0 else np.nan


def _passed(metrics: dict[str, float]) -> bool:
    return (
        metrics["rmse"] <= RMSE_LIMIT
        and metrics["mae"] <= MAE_LIMIT
        and metrics["angular_error_median"] <= ANGLE_LIMIT
        and metrics["r_squared"] >= R_SQUARED_LIMIT
    )
