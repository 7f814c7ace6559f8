"""Means over seeds with the interval that holds the true mean 95 times in 100."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Means over seeds.

    Attributes:
      mean: (n,).
      low: (n,) lower end of the interval of the mean; NaN for one seed.
      high: (n,) upper end.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_interval(values: Any) -> Interval:
    """Mean over seeds with its 95 % interval, for many rows at once.

    Args:
      values: (n, seeds).

    Returns:
      `Interval`; Student's t with seeds - 1 degrees of freedom.

    Example:
      >>> found = mean_interval([[1.0, 2.0, 3.0]])
      >>> round(float(found.low[0]), 3), round(float(found.high[0]), 3)
      (-0.484, 4.484)
    """
    values = np.asarray(values, np.float64)
    seeds = values.shape[1]
    mean = values.mean(axis=1)
    if seeds < 2:
        nothing = np.full_like(mean, np.nan)
        return Interval(mean, nothing, nothing)
    with np.errstate(invalid="ignore"):  # an infinite loss has no interval
        half = _student(seeds - 1) * values.std(axis=1, ddof=1) / math.sqrt(seeds)
    return Interval(mean, mean - half, mean + half)


@cache
def _student(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))
