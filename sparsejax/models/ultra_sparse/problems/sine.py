"""Waves of one variable, seen through the 256 columns that the published nets read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.features import Recipe, column_table, expand_input
from sparsejax.models.ultra_sparse.problems.problem import Problem, RawSplit, build_problem

Wave = Literal["sine", "step", "sawtooth", "xor", "chaotic"]

LEAK_CORRELATION = 0.99
"""A column whose correlation with the target reaches this, in absolute value, is a copy of the answer."""

VALIDATION_POINTS = 200
TEST_POINTS = 1000

WAVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sine": np.sin,
    "step": lambda x: np.sign(np.sin(x)),
    "sawtooth": lambda x: 2 * np.mod(x / (2 * np.pi), 1.0) - 1,
    "xor": lambda x: np.sign(np.sin(x)) * np.sign(np.cos(x)),
    "chaotic": lambda x: _logistic_map(np.mod(x / (2 * np.pi), 1.0)),
}
"""Targets by name, all within [-1, 1]. The last four stand for the originals' sweep tasks, whose formulas
are not documented: they are defined here."""


def sine(
    *,
    seed: int = 0,
    recipe: Recipe = "trained",
    leak_free: bool = False,
    wave: Wave = "sine",
    samples: int = 100,
    true_columns: int = 16,
    noise_columns: int = 240,
) -> Problem:
    """sin(x) from 256 functions of x: the published problem, or its leak-free form.

    Under the published recipe "trained", column 4 **is** the target sin(x), column 117 is its negative and
    column 15 is constantly zero: finding "the true inputs" there is finding a copy of the answer. With
    ``leak_free`` every column with |r| >= 0.99 to the target on the training grid is dropped, and every
    constant one.

    Training points are the published grid: ``samples`` equidistant x on [-2 pi, 2 pi], ends included
    ([0, 2 pi] for "library"). Validation (200) and test (1000) are other points, uniform on the same
    interval. Features and targets stay as they are, so that the published nets apply.

    Args:
      seed: of the held-out points; the training grid does not depend on it.
      recipe: of the columns, see `expand_input`.
      leak_free: drop copies of the target and constant columns.
      wave: the target, a key of `WAVES`.
      samples: training points.
      true_columns: see `expand_input`.
      noise_columns: see `expand_input`.

    Returns:
      a `Problem`; its true features are the columns of the leading block (the originals' accounting)
      without constant ones.

    Raises:
      ValueError: unknown recipe or wave, or fewer than two samples.

    Example:
      >>> sine(leak_free=True)
      Problem(sine, regression, 253 features, 100 + 200 + 1000 rows)

    Source: specs/ultra_sparse.md sections 1, 3 and 8.
    """
    options = dict(locals())
    if wave not in get_args(Wave):
        raise ValueError(f"wave {wave!r} is not one of {get_args(Wave)}")
    return _expanded("sine", WAVES[wave], options)


def multi_frequency(
    *,
    seed: int = 0,
    recipe: Recipe = "trained",
    leak_free: bool = False,
    samples: int = 100,
    true_columns: int = 16,
    noise_columns: int = 240,
) -> Problem:
    """The sum sin(x) + 0.3 sin(3 x) from the same columns; the options are those of `sine`.

    Example:
      >>> multi_frequency().train.targets.shape
      (100, 1)
    """
    return _expanded("multi_frequency", two_waves, dict(locals()))


def two_waves(x: np.ndarray) -> np.ndarray:
    """Target of `multi_frequency`: sin(x) + 0.3 sin(3 x)."""
    return np.sin(x) + 0.3 * np.sin(3 * x)


def leak_columns(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(i,) bool: columns with |r| >= 0.99 to the targets.

    Args:
      features: (b, i).
      targets: (b,) or (b, 1).

    Example:
      >>> x = np.linspace(0, 1, 5)
      >>> leak_columns(np.stack([x, -x, x * x, 0 * x], axis=1), x)
      array([ True,  True, False, False])
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    answer = np.ravel(targets).astype(np.float64)
    answer = answer - answer.mean()
    length = np.linalg.norm(centred, axis=0) * np.linalg.norm(answer)
    return np.abs(answer @ centred) >= LEAK_CORRELATION * np.maximum(length, np.finfo(np.float64).tiny)


def _expanded(name: str, target: Callable[[np.ndarray], np.ndarray], options: Mapping[str, Any]) -> Problem:
    recipe, samples, true_columns = options["recipe"], options["samples"], options["true_columns"]
    counts = {"true_columns": true_columns, "noise_columns": options["noise_columns"]}
    table = column_table(recipe, **counts)
    if samples < 2:
        raise ValueError(f"{name}: a grid needs at least two samples, not {samples}")
    parts = [
        RawSplit(np.asarray(expand_input(jnp.asarray(x), recipe, **counts)), target(x.astype(np.float64)))
        for x in _points(recipe, samples, np.random.default_rng(options["seed"]))
    ]
    constant = np.ptp(parts[0].features, axis=0) == 0
    dropped = (constant | leak_columns(*parts[0])) & options["leak_free"]
    kept = np.flatnonzero(~dropped).tolist()
    return build_problem(
        name,
        "regression",
        [RawSplit(part.features[:, kept], part.targets) for part in parts],
        feature_names=[f"{column}:{table[column].kind}" for column in kept],
        true_features=[i for i, column in enumerate(kept) if column < true_columns and not constant[column]],
        columns=kept,
        standardize=False,
        normalize=False,
        options=options,
    )


def _points(recipe: Recipe, samples: int, draws: np.random.Generator) -> tuple[np.ndarray, ...]:
    low, high = (0.0 if recipe == "library" else -2 * np.pi), 2 * np.pi
    grid = np.linspace(low, high, samples, dtype=np.float32)
    # A draw that rounds to a point of the grid, or to an earlier draw, is left out: the parts stay disjoint.
    drawn = np.unique(draws.uniform(low, high, 4 * TEST_POINTS).astype(np.float32))
    others = draws.permutation(np.setdiff1d(drawn, grid))[: VALIDATION_POINTS + TEST_POINTS]
    return grid, others[:VALIDATION_POINTS], others[VALIDATION_POINTS:]


def _logistic_map(start: np.ndarray, steps: int = 4) -> np.ndarray:
    value = start
    for _ in range(steps):
        value = 4 * value * (1 - value)
    return 2 * value - 1
