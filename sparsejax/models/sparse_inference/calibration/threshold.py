"""Thresholds for scores: the quantile that a sparsity or a recall asks for."""

from __future__ import annotations

from typing import Any

import numpy as np


def threshold_of_fraction(scores: Any, active_fraction: float) -> float:
    """The threshold that this share of the scores exceeds.

    Args:
      scores: of any shape, at least one.
      active_fraction: 0 to 1; at 1 the threshold is below all scores.

    Raises:
      ValueError: a fraction out of range, no scores, or NaN.

    Example:
      >>> threshold_of_fraction([0.5, 2.0, 1.0, -3.0], 0.5)
      0.5
    """
    if not 0 <= active_fraction <= 1:
        raise ValueError(f"active_fraction must be 0 to 1, not {active_fraction}")
    return _exceeded(scores, active_fraction)


def threshold_of_recall(scores: Any, wanted: Any, recall: float) -> float:
    """The largest threshold that at least this share of the wanted neurons' scores exceeds.

    Args:
      scores: (*b, f).
      wanted: bool (*b, f), which neurons are to be found.
      recall: 0 to 1.

    Raises:
      ValueError: a recall out of range, nothing that is wanted, or NaN.

    Example:
      >>> threshold_of_recall([0.5, 2.0, 1.0, -3.0], [True, True, False, True], 0.6)
      -3.0
    """
    if not 0 <= recall <= 1:
        raise ValueError(f"recall must be 0 to 1, not {recall}")
    scores, wanted = np.asarray(scores), np.asarray(wanted, bool)
    if scores.shape != wanted.shape:
        raise ValueError(f"scores {scores.shape} and wanted {wanted.shape} must have one shape")
    if not wanted.any():
        raise ValueError("no neuron is wanted for any sample, so no threshold finds a share of them")
    return _exceeded(scores[wanted], recall, up=True)


def _exceeded(scores: Any, share: float, *, up: bool = False) -> float:
    """What ``share`` of the scores, rounded or rounded up, is above."""
    flat = np.ravel(np.asarray(scores, np.float32))
    if not flat.size:
        raise ValueError("there are no scores")
    if np.isnan(flat).any():
        raise ValueError("the scores hold NaN; check the inputs and the predictor's matrices")
    above = share * flat.size
    count = int(np.ceil(above - 1e-6 * min(1.0, above)) if up else np.floor(above + 0.5))
    if count >= flat.size:
        return float(np.nextafter(flat.min(), np.float32(-np.inf)))
    place = flat.size - count - 1
    return float(np.partition(flat, place)[place])
