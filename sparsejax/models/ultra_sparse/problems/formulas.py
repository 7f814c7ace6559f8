"""Noise-free targets of the generated problems (specs/ultra_sparse.md section 8).

All take features (b, i) and give targets (b,) in float64; the last three give labels 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

HighDimensionalVariant = Literal["full", "ablation"]

LINEAR_WEIGHTS = (10.0, 8.0, 6.0, 4.0, 2.0)
"""Weights of the linear terms of `high_dimensional`."""


def friedman1(features: Any) -> np.ndarray:
    """``10 sin(pi x0 x1) + 20 (x2 - 1/2)^2 + 10 x3 + 5 x4``, for x uniform in [0, 1]."""
    x = _by_column(features)
    return 10 * np.sin(np.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]


def friedman2(features: Any) -> np.ndarray:
    """``sqrt(x0^2 + (x1 x2 - 1 / (x1 x3))^2)``: the impedance of an alternating current circuit."""
    x = _by_column(features)
    return np.hypot(x[0], x[1] * x[2] - 1 / (x[1] * x[3]))


def friedman3(features: Any) -> np.ndarray:
    """``atan((x1 x2 - 1 / (x1 x3)) / x0)``: the phase of the same circuit."""
    x = _by_column(features)
    return np.arctan((x[1] * x[2] - 1 / (x[1] * x[3])) / x[0])


def high_dimensional(features: Any, n_true: int = 10, variant: HighDimensionalVariant = "full") -> np.ndarray:
    """Linear, product, square, modulus and wave terms of up to ten columns, for x uniform in [0, 1].

    Args:
      features: (b, i).
      n_true: terms enter in order: ``10 x0 .. 2 x4`` one by one, then ``5 sin(pi x5 x6)`` from 6 on,
        ``3 (x7 - 1/2)^2`` above 7, ``2 |x8 - 1/2|`` above 8, ``cos(2 pi x9)`` above 9. So 6 reads seven
        columns, see `high_dimensional_columns`.
      variant: "ablation" drops the terms of x8 and x9.

    Returns:
      (b,).

    Raises:
      ValueError: n_true outside of 1 to 10, or an unknown variant.

    Example:
      >>> high_dimensional(np.full((1, 10), 0.5)).round(4)
      array([17.5355])
    """
    used = high_dimensional_columns(n_true, variant)
    x = _by_column(features)
    terms = {
        6: lambda: 5 * np.sin(np.pi * x[5] * x[6]),
        7: lambda: 3 * (x[7] - 0.5) ** 2,
        8: lambda: 2 * np.abs(x[8] - 0.5),
        9: lambda: np.cos(2 * np.pi * x[9]),
    }
    linear = sum(weight * x[column] for column, weight in enumerate(LINEAR_WEIGHTS[:n_true]))
    return linear + sum(term() for last, term in terms.items() if last in used)


def high_dimensional_columns(n_true: int = 10, variant: HighDimensionalVariant = "full") -> tuple[int, ...]:
    """Columns that `high_dimensional` reads.

    Raises:
      ValueError: n_true outside of 1 to 10, or an unknown variant.

    Example:
      >>> high_dimensional_columns(6)
      (0, 1, 2, 3, 4, 5, 6)
    """
    if not 1 <= n_true <= 10:
        raise ValueError(f"n_true must be from 1 to 10, not {n_true}")
    if variant not in get_args(HighDimensionalVariant):
        raise ValueError(f"variant {variant!r} is not one of {get_args(HighDimensionalVariant)}")
    count = 7 if n_true == 6 else n_true
    return tuple(range(min(count, 8) if variant == "ablation" else count))


def synthetic(features: Any, true_features: Sequence[int] = (3, 17, 42)) -> np.ndarray:
    """Sine of the first true column, plus cosine of the second, plus half of each other."""
    x = _by_column(features)
    first, second, *others = true_features
    return np.sin(x[first]) + np.cos(x[second]) + 0.5 * sum(x[column] for column in others)


def xor(features: Any, true_features: Sequence[int] = (5, 23)) -> np.ndarray:
    """``tanh`` of the product of two columns: neither helps alone."""
    x = _by_column(features)
    first, second = true_features
    return np.tanh(x[first] * x[second])


def time_series(features: Any, lags: Sequence[int] = (1, 5, 20)) -> np.ndarray:
    """Past values at the lags with weights 1, 1/2, 1/3, ...; lag l is column l - 1."""
    x = _by_column(features)
    return sum((x[lag - 1] / number for number, lag in enumerate(lags, 1)), np.zeros(len(x[0])))


def threshold_labels(features: Any, true_features: Sequence[int] = (3, 17, 42)) -> np.ndarray:
    """1 where the sum of the true columns is positive."""
    return (_by_column(features)[list(true_features)].sum(axis=0) > 0).astype(np.int32)


def interaction_labels(features: Any, true_features: Sequence[int] = (3, 17, 42)) -> np.ndarray:
    """1 where the product of the first two true columns plus the sum of the others is positive."""
    x = _by_column(features)
    first, second, *others = true_features
    return (x[first] * x[second] + x[others].sum(axis=0) > 0).astype(np.int32)


def xor_labels(features: Any, true_features: Sequence[int] = (5, 23)) -> np.ndarray:
    """1 where exactly one of two columns is positive."""
    x = _by_column(features)
    first, second = true_features
    return ((x[first] > 0) != (x[second] > 0)).astype(np.int32)


def check_true_features(true_features: Sequence[int], at_least: int, at_most: int | None = None) -> None:
    """Refuse a set of true columns that a formula cannot read.

    Raises:
      ValueError: repeated columns, too few, or too many.
    """
    if len(set(true_features)) != len(true_features):
        raise ValueError(f"true_features {tuple(true_features)} repeat a column")
    if len(true_features) < at_least or (at_most is not None and len(true_features) > at_most):
        wanted = f"exactly {at_most}" if at_most == at_least else f"at least {at_least}"
        raise ValueError(f"true_features must be {wanted} columns, not {tuple(true_features)}")


def _by_column(features: Any) -> np.ndarray:
    return np.asarray(features, np.float64).T
