"""Rows drawn at random, in three parts, with a known formula for the target.

Training rows come first, then half as many validation rows, then 1000 test rows, all from one NumPy
`RandomState(seed)`: unscaled, the training part has the features of the original library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax.models.ultra_sparse.problems.problem import Problem, RawSplit, build_problem

Draw = Callable[[np.random.RandomState, int], np.ndarray]
"""Features (rows, i) from a stream of draws and a number of rows."""

TEST_ROWS = 1000


def draw_problem(
    name: str,
    formula: Callable[[np.ndarray], np.ndarray],
    draw: Draw,
    true_features: Sequence[int],
    options: Mapping[str, Any],
    *,
    feature_names: Sequence[str] | None = None,
) -> Problem:
    """The problem of a formula and a way to draw features.

    Args:
      name: of the problem.
      formula: noise-free targets or labels of features.
      draw: features.
      true_features: columns that the formula reads.
      options: all options of the problem: seed, columns, samples, standardize, and either "noise" (the
        deviation of normal noise on the target) or "flips" (the share of two-class labels turned around).
      feature_names: one per column.

    Returns:
      a `Problem`.

    Raises:
      ValueError: the formula reads a column that the table lacks, or fewer than two training rows.
    """
    columns, samples = options["columns"], options["samples"]
    if outside := [column for column in true_features if not 0 <= column < columns]:
        raise ValueError(f"{name}: the target reads columns {outside}, outside of the table's {columns}")
    if samples < 2:
        raise ValueError(f"{name}: samples must be at least 2, not {samples}")
    disturb = _flipped(options["flips"]) if "flips" in options else _noisy(options["noise"])
    draws = np.random.RandomState(options["seed"])

    def part(rows: int) -> RawSplit:
        features = draw(draws, rows)
        return RawSplit(features, disturb(draws, formula(features)))

    return build_problem(
        name,
        "classification" if "flips" in options else "regression",
        [part(rows) for rows in (samples, samples // 2, TEST_ROWS)],
        feature_names=feature_names,
        true_features=true_features,
        standardize=options["standardize"],
        options=options,
    )


def uniform(columns: int) -> Draw:
    """Columns uniform in [0, 1]."""
    return lambda draws, rows: draws.rand(rows, columns)


def normal(columns: int) -> Draw:
    """Standard normal columns."""
    return lambda draws, rows: draws.standard_normal((rows, columns))


def _noisy(deviation: float) -> Callable[[np.random.RandomState, np.ndarray], np.ndarray]:
    return lambda draws, targets: targets + deviation * draws.randn(len(targets))


def _flipped(share: float) -> Callable[[np.random.RandomState, np.ndarray], np.ndarray]:
    return lambda draws, labels: np.where(draws.rand(len(labels)) < share, 1 - labels, labels)
