"""What a sparse FFN drops, given back by a small linear map: ``y += U (V x) + c``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Compensation(NamedTuple):
    """A linear map of low rank, with a constant.

    Attributes:
      u: (o, r).
      v: (r, d).
      c: (o,).

    Example:
      >>> Compensation(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.zeros(2)).u.shape
      (2, 1)
    """

    u: jax.Array
    v: jax.Array
    c: jax.Array

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Compensation:
        """From parameters with these names.

        Example:
          >>> Compensation.of({"u": 1, "v": 2, "c": 3}).v
          2
        """
        return cls(params["u"], params["v"], params["c"])


def compensation(inputs: jax.Array, fitted: Compensation) -> jax.Array:
    """What is added to the outputs of a sparse FFN.

    Args:
      inputs: (*b, d) of the FFN.
      fitted: by `fit_compensation`.

    Returns:
      (*b, o), float32 at least.

    Example:
      >>> fitted = Compensation(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray([0.0, 5.0]))
      >>> compensation(jnp.ones(3), fitted).tolist()
      [3.0, 8.0]

    Source: a linear fit of what is dropped, as low-rank corrections of compressed layers have it; the
    published engine has none.
    """
    wide = jnp.promote_types(inputs.dtype, jnp.float32)
    narrow = jnp.matmul(inputs, fitted.v.T, preferred_element_type=wide)
    return jnp.matmul(narrow, fitted.u.T.astype(wide), preferred_element_type=wide) + fitted.c


def compensated(
    outputs: jax.Array, inputs: jax.Array, fitted: Compensation, mask: jax.Array | None = None
) -> jax.Array:
    """Outputs of a sparse FFN with what is fitted to its losses; a token that loses nothing gets nothing.

    Args:
      outputs: (*b, o).
      inputs: (*b, d) of the FFN.
      fitted: the map.
      mask: bool (*b, f) of the neurons that each token computes, where that may be all of them; else None.

    Returns:
      (*b, o) in the dtype of ``outputs``.

    Example:
      >>> fitted = Compensation(jnp.zeros((1, 1)), jnp.zeros((1, 2)), jnp.ones(1))
      >>> mask = jnp.array([[True, True, True], [True, False, True]])
      >>> compensated(jnp.zeros((2, 1)), jnp.ones((2, 2)), fitted, mask).tolist()
      [[0.0], [1.0]]
    """
    added = compensation(inputs, fitted)
    if mask is not None:
        added = jnp.where(mask.all(axis=-1, keepdims=True), 0, added)
    return (outputs + added).astype(outputs.dtype)


def fit_compensation(inputs: Any, dropped: Any, *, rank: int, ridge: float = 1e-3) -> Compensation:
    """The best map of a rank, by least squares, from inputs to what a sparse FFN drops for them.

    Args:
      inputs: (n, d) samples of the FFN's inputs.
      dropped: (n, o) outputs of all neurons less those of the sparse FFN.
      rank: of the map, 0 to min(d, o); 0 fits the constant alone.
      ridge: weight of the map's size, relative to the mean variance of an input.

    Returns:
      float32 arrays.

    Raises:
      ValueError: shapes that do not fit each other, no samples, NaN, or a rank that is out of range.

    Example:
      >>> draws = np.random.default_rng(0)
      >>> inputs = draws.normal(size=(200, 6))
      >>> dropped = np.outer(inputs[:, 0] - inputs[:, 3], np.ones(4)) + 2
      >>> fitted = fit_compensation(inputs, dropped, rank=1, ridge=1e-9)
      >>> bool(jnp.abs(compensation(jnp.asarray(inputs), fitted) - dropped).max() < 1e-4)
      True

    Source: reduced-rank ridge regression (Izenman 1975; Mukherjee and Zhu 2011): of the ridge solution's
    fitted values only the first principal directions are kept. With fewer samples than inputs it is solved
    in the space of the samples.
    """
    x, y = np.asarray(inputs, np.float64), np.asarray(dropped, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"inputs {x.shape} and dropped {y.shape} must be rows of the same samples, at least one"
        )
    if not 0 <= rank <= min(x.shape[1], y.shape[1]):
        raise ValueError(f"rank must be 0 to {min(x.shape[1], y.shape[1])}, the narrower side, not {rank}")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, not {ridge}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("inputs and dropped must be finite; they hold NaN or infinity")
    middle_x, middle_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - middle_x, y - middle_y
    weight = max(ridge * float((x * x).sum()) / x.shape[1], np.finfo(np.float64).tiny)
    solve = _by_samples if len(x) < x.shape[1] else _by_inputs
    u, v = solve(x, y, rank, weight)
    c = middle_y - u @ (v @ middle_x)
    return Compensation(*(jnp.asarray(part, jnp.float32) for part in (u, v, c)))


@dataclass(frozen=True)
class CompensationErrors:
    """Relative errors of outputs, the norm of the differences over that of the outputs of all neurons.

    Attributes:
      without: of the sparse FFN alone.
      with_it: with its compensation.
    """

    without: float
    with_it: float


def compensation_errors(inputs: Any, dropped: Any, exact: Any, fitted: Compensation) -> CompensationErrors:
    """What a compensation is worth on samples, best on others than it was fitted to.

    Args:
      inputs: (n, d) of the FFN.
      dropped: (n, o) outputs of all neurons less those of the sparse FFN.
      exact: (n, o) outputs of all neurons.
      fitted: the map.

    Example:
      >>> fitted = Compensation(jnp.zeros((2, 1)), jnp.zeros((1, 3)), jnp.ones(2))
      >>> compensation_errors(np.ones((4, 3)), np.ones((4, 2)), np.full((4, 2), 4.0), fitted)
      CompensationErrors(without=0.25, with_it=0.0)
    """
    size = np.linalg.norm(np.asarray(exact, np.float64))
    left = np.asarray(dropped, np.float64)
    given_back = np.asarray(compensation(jnp.asarray(inputs, jnp.float32), fitted), np.float64)
    return CompensationErrors(
        float(np.linalg.norm(left) / size), float(np.linalg.norm(left - given_back) / size)
    )


def _by_inputs(x: np.ndarray, y: np.ndarray, rank: int, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """The factors u (o, r) and v (r, d) through the matrix of the inputs' products (d, d)."""
    from scipy.linalg import cho_factor, cho_solve, solve_triangular

    products = x.T @ x
    products[np.diag_indices_from(products)] += weight
    factor = cho_factor(products, lower=True, overwrite_a=True)
    mixed = x.T @ y
    u = _directions(solve_triangular(factor[0], mixed, lower=True), rank)
    return u, cho_solve(factor, mixed @ u).T


def _by_samples(x: np.ndarray, y: np.ndarray, rank: int, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """The same through the matrix of the samples' products (n, n)."""
    sizes, axes = np.linalg.eigh(x @ x.T)
    sizes = np.maximum(sizes, 0)
    along = axes.T @ y
    u = _directions(np.sqrt(sizes / (sizes + weight))[:, None] * along, rank)
    return u, (x.T @ (axes @ ((along @ u) / (sizes + weight)[:, None]))).T


def _directions(fitted: np.ndarray, rank: int) -> np.ndarray:
    """(o, r) right singular vectors of the largest singular values."""
    high, wide = fitted.shape
    if wide <= high:
        return np.linalg.eigh(fitted.T @ fitted)[1][:, wide - rank :][:, ::-1]
    rows = fitted.T @ np.linalg.eigh(fitted @ fitted.T)[1][:, high - min(rank, high) :][:, ::-1]
    found, _ = np.linalg.qr(rows)
    missing = rank - found.shape[1]
    return np.pad(found, ((0, 0), (0, missing))) if missing else found
