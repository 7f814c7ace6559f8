"""Regression tables with a known formula behind them: some columns matter, the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np

from sparsejax.models.ultra_sparse.problems import formulas
from sparsejax.models.ultra_sparse.problems.drawn import Draw, draw_problem, normal, uniform
from sparsejax.models.ultra_sparse.problems.formulas import HighDimensionalVariant
from sparsejax.models.ultra_sparse.problems.problem import Problem

FriedmanRanges = Literal["friedman", "published"]


def friedman1(
    *, seed: int = 0, columns: int = 20, samples: int = 500, noise: float = 1.0, standardize: bool = True
) -> Problem:
    """Friedman's first benchmark: five columns matter, uniform in [0, 1].

    Args:
      seed: of the rows and the noise.
      columns: at least 5.
      samples: training rows.
      noise: deviation of the target noise (1.0 in the originals' scripts, 0.5 in their library).
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: fewer than 5 columns, or no rows.

    Example:
      >>> friedman1().true_features
      (0, 1, 2, 3, 4)
    """
    options = dict(locals())
    return draw_problem("friedman1", formulas.friedman1, uniform(columns), range(5), options)


def friedman2(
    *,
    seed: int = 0,
    columns: int = 10,
    samples: int = 500,
    noise: float = 125.0,
    ranges: FriedmanRanges = "friedman",
    standardize: bool = True,
) -> Problem:
    """Friedman's second benchmark (impedance): four columns matter, of very different ranges.

    Args:
      seed: of the rows and the noise.
      columns: at least 4; the others are uniform in [0, 1].
      samples: training rows.
      noise: deviation of the target noise.
      ranges: "friedman" draws x1 from [40 pi, 560 pi], as Friedman defined it; "published" from [40, 560],
        as the originals do.
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: fewer than 4 columns, no rows, or unknown ranges.

    Example:
      >>> friedman2().true_features
      (0, 1, 2, 3)
    """
    options = dict(locals())
    return draw_problem("friedman2", formulas.friedman2, _circuit(columns, ranges), range(4), options)


def friedman3(
    *,
    seed: int = 0,
    columns: int = 10,
    samples: int = 500,
    noise: float = 0.1,
    ranges: FriedmanRanges = "friedman",
    standardize: bool = True,
) -> Problem:
    """Friedman's third benchmark (phase); the options are those of `friedman2`.

    Example:
      >>> friedman3().true_features
      (0, 1, 2, 3)
    """
    options = dict(locals())
    return draw_problem("friedman3", formulas.friedman3, _circuit(columns, ranges), range(4), options)


def high_dimensional(
    *,
    seed: int = 0,
    columns: int = 1000,
    n_true: int = 10,
    variant: HighDimensionalVariant = "full",
    samples: int = 500,
    noise: float = 0.5,
    standardize: bool = True,
) -> Problem:
    """Ten true columns among a thousand, uniform in [0, 1], and only 500 training rows.

    Args:
      seed: of the rows and the noise.
      columns: of the table.
      n_true: see `formulas.high_dimensional`.
      variant: "full", or "ablation" without the last two terms.
      samples: training rows.
      noise: deviation of the target noise.
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: fewer columns than the formula reads, no rows, unknown variant or n_true.

    Example:
      >>> high_dimensional(columns=50)
      Problem(high_dimensional, regression, 50 features, 500 + 250 + 1000 rows)
    """
    options = dict(locals())
    true = formulas.high_dimensional_columns(n_true, variant)
    return draw_problem(
        "high_dimensional",
        partial(formulas.high_dimensional, n_true=n_true, variant=variant),
        uniform(columns),
        true,
        options,
    )


def synthetic(
    *,
    seed: int = 0,
    columns: int = 100,
    true_features: Sequence[int] = (3, 17, 42),
    samples: int = 500,
    noise: float = 0.1,
    standardize: bool = True,
) -> Problem:
    """A sine, a cosine and halves of normal columns.

    Args:
      seed: of the rows and the noise.
      columns: of the table.
      true_features: sine of the first, cosine of the second, half of each other.
      samples: training rows.
      noise: deviation of the target noise (not documented for the originals).
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: a true feature that does not exist, fewer than two of them, or no rows.

    Example:
      >>> synthetic().true_features
      (3, 17, 42)
    """
    options = dict(locals())
    formulas.check_true_features(true_features, at_least=2)
    formula = partial(formulas.synthetic, true_features=true_features)
    return draw_problem("synthetic", formula, normal(columns), true_features, options)


def xor(
    *,
    seed: int = 0,
    columns: int = 100,
    true_features: Sequence[int] = (5, 23),
    samples: int = 500,
    noise: float = 0.1,
    standardize: bool = True,
) -> Problem:
    """Product of two normal columns under a tanh: no column correlates with the target.

    The options are those of `synthetic`, with exactly two true features.

    Example:
      >>> xor().true_features
      (5, 23)
    """
    options = dict(locals())
    formulas.check_true_features(true_features, at_least=2, at_most=2)
    formula = partial(formulas.xor, true_features=true_features)
    return draw_problem("xor", formula, normal(columns), true_features, options)


def time_series(
    *,
    seed: int = 0,
    columns: int = 50,
    lags: Sequence[int] = (1, 5, 20),
    samples: int = 500,
    noise: float = 0.1,
    standardize: bool = True,
) -> Problem:
    """The next value of a series from a window of past ones; three lags matter.

    The three parts are windows of three separate series: windows of one series would share values.

    Args:
      seed: of the series and the noise.
      columns: width of the window; column c holds lag c + 1.
      lags: that the target reads, with weights 1, 1/2, 1/3, ...
      samples: training rows.
      noise: deviation of the target noise (not documented for the originals).
      standardize: give columns mean 0 and deviation 1.

    Returns:
      a `Problem`.

    Raises:
      ValueError: a lag outside of the window, or no rows.

    Example:
      >>> time_series().feature_names[19]
      'lag20'
    """
    options = dict(locals())
    true = tuple(lag - 1 for lag in lags)

    def windows(draws: np.random.RandomState, rows: int) -> np.ndarray:
        series = draws.standard_normal(rows + columns - 1)
        return np.lib.stride_tricks.sliding_window_view(series, columns)[:, ::-1]

    return draw_problem(
        "time_series",
        partial(formulas.time_series, lags=lags),
        windows,
        true,
        options,
        feature_names=[f"lag{number}" for number in range(1, columns + 1)],
    )


def _circuit(columns: int, ranges: FriedmanRanges) -> Draw:
    if ranges not in get_args(FriedmanRanges):
        raise ValueError(f"ranges {ranges!r} is not one of {get_args(FriedmanRanges)}")
    turn = np.pi if ranges == "friedman" else 1.0
    low = np.array([0.0, 40 * turn, 0.0, 1.0])
    high = np.array([100.0, 560 * turn, 1.0, 11.0])

    def draw(draws: np.random.RandomState, rows: int) -> np.ndarray:
        features = draws.rand(rows, columns)
        features[:, :4] = low + (high - low) * features[:, :4]
        return features

    if columns < 4:
        raise ValueError(f"the circuit has 4 columns, not {columns}")
    return draw
