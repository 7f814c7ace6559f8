"""Covariate shift: test features that drift away from the training ones, and how a net bears it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sparsejax.models.ultra_sparse.features import as_real
from sparsejax.models.ultra_sparse.problems.problem import Problem, RawSplit, build_problem
from sparsejax.typing import Features

ShiftKind = Literal[
    "translation", "rotation", "scaling", "noise", "brightness", "contrast", "dropout", "blur"
]

GAUSSIAN_CENTRES = ((2.0, 2.0), (-2.0, 2.0), (-2.0, -2.0), (2.0, -2.0))
"""Means of the four classes of `shift_gaussians` in columns 0 and 1; the originals' are not documented."""

CLIFF = -0.1
"""A point where accuracy falls faster than this per unit of magnitude is a cliff."""


def shift(
    features: ArrayLike, kind: ShiftKind, magnitude: float | jax.Array, key: jax.Array | None = None
) -> Features:
    """Features after a shift; magnitude 0 leaves them as they are.

    Args:
      features: (b, i); for "blur" square images row by row, as the 8 x 8 digits are.
      kind: "translation" adds m to column 0 and m/2 to column 1; "rotation" turns these two by m radians;
        "scaling" multiplies all by 1 + m; "noise" adds m times a standard normal; "brightness" adds m to
        all; "contrast" scales the distance to a row's mean by 1 + m; "dropout" sets a share m of the
        entries to 0; "blur" mixes a share m of the mean over the 3 x 3 neighbours that exist.
      magnitude: m.
      key: PRNG key of "noise" and "dropout".

    Returns:
      (b, i).

    Raises:
      ValueError: unknown kind, no key for a random kind, fewer than two columns, or no square image.

    Example:
      >>> shift(jnp.ones((1, 3)), "translation", 2.0)
      Array([[3., 2., 1.]], dtype=float32)

    Source: specs/ultra_sparse.md sections 8 and 17.
    """
    if kind not in get_args(ShiftKind):
        raise ValueError(f"shift {kind!r} is not one of {get_args(ShiftKind)}")
    features = as_real(features)
    if kind not in _RANDOM:
        return _FIXED[kind](features, magnitude)
    if key is None:
        raise ValueError(f"shift {kind!r} is random: pass key=jax.random.key(...)")
    return _RANDOM[kind](key, features, magnitude)


@dataclass(frozen=True)
class Degradation:
    """How accuracy falls with the magnitude of a shift.

    Attributes:
      area: under accuracy over magnitude (trapezoids).
      steepest: smallest derivative.
      mean_derivative: mean over the points.
      cliffs: points with a derivative below -0.1.
      half: first magnitude with accuracy below 0.5; None if it stays above.
      final: accuracy at the last magnitude.
    """

    area: float
    steepest: float
    mean_derivative: float
    cliffs: int
    half: float | None
    final: float


def degradation(magnitudes: Any, accuracies: Any) -> Degradation:
    """Summary of an accuracy curve.

    Args:
      magnitudes: (n,) ascending, at least two.
      accuracies: (n,).

    Returns:
      `Degradation`.

    Raises:
      ValueError: lengths differ or fewer than two points.

    Example:
      >>> degradation([0, 1, 2], [1.0, 0.6, 0.4]).half
      2.0

    Source: specs/ultra_sparse.md section 7.
    """
    magnitudes, accuracies = np.asarray(magnitudes, np.float64), np.asarray(accuracies, np.float64)
    if magnitudes.shape != accuracies.shape or magnitudes.ndim != 1 or len(magnitudes) < 2:
        raise ValueError(f"two curves of one length are needed, not {magnitudes.shape}, {accuracies.shape}")
    derivative = np.gradient(accuracies, magnitudes)
    below = magnitudes[accuracies < 0.5]
    return Degradation(
        area=float(np.trapezoid(accuracies, magnitudes)),
        steepest=float(derivative.min()),
        mean_derivative=float(derivative.mean()),
        cliffs=int((derivative < CLIFF).sum()),
        half=float(below[0]) if len(below) else None,
        final=float(accuracies[-1]),
    )


@dataclass(frozen=True)
class GateChanges:
    """How binary gates change along a shift.

    Attributes:
      total: changed gates over all steps.
      per_step: changed gates of each step.
      flip_magnitudes: magnitudes reached by steps that change at least two gates.
    """

    total: int
    per_step: tuple[int, ...]
    flip_magnitudes: tuple[float, ...]


def gate_changes(magnitudes: Sequence[float], gates: Any) -> GateChanges:
    """Count changes of gates (n, g), 0 or 1, over n magnitudes.

    Example:
      >>> gate_changes([0.0, 0.5, 1.0], [[0, 0], [1, 1], [1, 0]])
      GateChanges(total=3, per_step=(2, 1), flip_magnitudes=(0.5,))
    """
    changed = np.abs(np.diff(np.asarray(gates, np.int64), axis=0)).sum(axis=1)
    flips = [float(m) for m, count in zip(magnitudes[1:], changed, strict=True) if count >= 2]
    return GateChanges(int(changed.sum()), tuple(changed.tolist()), tuple(flips))


def shift_gaussians(*, seed: int = 0, columns: int = 16, samples: int = 800) -> Problem:
    """Four Gaussian classes in 16 dimensions, to be shifted by `shift` at test time.

    The classes sit on a square in columns 0 and 1, the two that "translation" and "rotation" move; every
    column has deviation 1 around its class. Features stay unscaled, so that magnitudes mean what they say.

    Args:
      seed: of the rows.
      columns: at least 2.
      samples: training rows; half as many for validation, as many for test.

    Returns:
      a `Problem`.

    Raises:
      ValueError: fewer than two columns or fewer rows than classes.

    Example:
      >>> shift_gaussians().true_features
      (0, 1)
    """
    options = dict(locals())
    if columns < 2 or samples < 2 * len(GAUSSIAN_CENTRES):
        raise ValueError(f"shift_gaussians needs 2 columns and 8 samples, not {columns} and {samples}")
    draws = np.random.RandomState(seed)

    def part(rows: int) -> RawSplit:
        labels = draws.permutation(np.arange(rows) % len(GAUSSIAN_CENTRES))
        features = draws.standard_normal((rows, columns))
        features[:, :2] += np.array(GAUSSIAN_CENTRES)[labels]
        return RawSplit(features, labels)

    return build_problem(
        "shift_gaussians",
        "classification",
        [part(rows) for rows in (samples, samples // 2, samples)],
        true_features=(0, 1),
        standardize=False,
        options=options,
    )


def _translated(x: jax.Array, m: Any) -> jax.Array:
    _check_plane(x)
    return x.at[:, 0].add(m).at[:, 1].add(m / 2)


def _rotated(x: jax.Array, m: Any) -> jax.Array:
    _check_plane(x)
    cosine, sine = jnp.cos(m), jnp.sin(m)
    first, second = x[:, 0], x[:, 1]
    return x.at[:, 0].set(cosine * first - sine * second).at[:, 1].set(sine * first + cosine * second)


def _check_plane(x: jax.Array) -> None:
    if x.shape[1] < 2:
        raise ValueError(f"this shift moves columns 0 and 1; there is only {x.shape[1]}")


def _contrasted(x: jax.Array, m: Any) -> jax.Array:
    mean = jnp.mean(x, axis=1, keepdims=True)
    return mean + (1 + m) * (x - mean)


def _blurred(x: jax.Array, m: Any) -> jax.Array:
    side = math.isqrt(x.shape[1])
    if side * side != x.shape[1]:
        raise ValueError(f"blur needs square images; {x.shape[1]} columns are none")
    sums = _neighbour_sums(x.reshape(-1, side, side))
    counts = _neighbour_sums(jnp.ones((1, side, side), x.dtype))
    return (1 - m) * x + m * (sums / counts).reshape(x.shape)


def _neighbour_sums(images: jax.Array) -> jax.Array:
    side = images.shape[-1]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1)))
    return sum(
        (padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)), jnp.zeros_like(images)
    )


_FIXED: dict[str, Callable[[jax.Array, Any], jax.Array]] = {
    "translation": _translated,
    "rotation": _rotated,
    "scaling": lambda x, m: x * (1 + m),
    "brightness": lambda x, m: x + m,
    "contrast": _contrasted,
    "blur": _blurred,
}

_RANDOM: dict[str, Callable[[jax.Array, jax.Array, Any], jax.Array]] = {
    "noise": lambda key, x, m: x + m * jax.random.normal(key, x.shape, x.dtype),
    "dropout": lambda key, x, m: jnp.where(jax.random.uniform(key, x.shape) < m, 0.0, x),
}
