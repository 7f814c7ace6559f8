"""Low-rank predictors in closed form: ridge regression whose coefficients have a small rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.calibration.moments import Moments
from sparsejax.models.sparse_inference.config import check_rank
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor

Formula = Literal["centred", "published"]
"""The inputs are centred and the ridge is relative to their mean variance; or neither, as specified."""

_EXACT = 768  # widest products whose eigenvectors are all computed
_EXTRA = 16  # directions beyond the rank that the iteration carries along
_ROUNDS = 40  # of it at most
_SETTLED = 1e-7  # relative change of the captured variance at which it ends
_LEAST = 1e-12  # ridge, relative to the square of the inputs' mean
_ROWS = 2048  # of the neurons that are made float64 at a time


def solve_sums(
    moments: Moments,
    w: np.ndarray,
    b: np.ndarray | None,
    *,
    rank: int,
    scale: np.ndarray | None = None,
    ridge: float = 1e-3,
    formula: Formula = "centred",
) -> LowRankPredictor:
    """The best predictor of this rank of ``scale * (w x + b)``, sums that are linear in what was seen.

    As they are linear, products of the inputs say everything: no sums of single samples are needed.

    Args:
      moments: of the inputs; their targets are the FFN's own inputs where these are others.
      w: (f, e) of the FFN.
      b: (f,), or None.
      rank: 1 to min(d, f).
      scale: (f,) of the neurons, which makes the large ones matter more; None is 1.
      ridge: weight of the coefficients' squares.
      formula: see `Formula`.

    Raises:
      ValueError: a rank or a ridge out of range, an unknown formula, or no samples.

    Source: specs/sparse_inference.md section 2; reduced-rank regression (Izenman 1975).
    """
    weight = np.ones(len(w)) if scale is None else np.asarray(scale, np.float64)
    cross, mean = moments.products_with_y(), moments.mean_y
    gram, means = np.zeros((w.shape[1], w.shape[1])), []
    for start in range(0, len(w), _ROWS):
        part = np.asarray(w[start : start + _ROWS], np.float64) * weight[start : start + _ROWS, None]
        gram += part.T @ part
        means.append(part @ mean)
    mean_sums = np.concatenate(means) + (0 if b is None else weight * np.asarray(b, np.float64))
    plain = np.asarray(w, np.float32)

    def with_targets(directions: np.ndarray) -> np.ndarray:
        return weight[:, None] * (plain @ (cross.T @ directions).astype(np.float32))

    squares = cross @ gram @ cross.T
    return _solved(moments, squares, with_targets, mean_sums, rank=rank, ridge=ridge, formula=formula)


def solve_targets(
    moments: Moments, *, rank: int, ridge: float = 1e-3, formula: Formula = "centred"
) -> LowRankPredictor:
    """The best predictor of this rank of whatever targets were seen.

    Args:
      moments: of inputs and targets (e = f of the neurons).
      rank: 1 to min(d, f).
      ridge: weight of the coefficients' squares.
      formula: see `Formula`.

    Raises:
      ValueError: a rank or a ridge out of range, an unknown formula, or no samples.

    Example:
      >>> draws = np.random.default_rng(0)
      >>> x = draws.normal(size=(100, 3))
      >>> y = np.outer(x[:, 0] - x[:, 2], [1.0, 2.0, 3.0, 4.0]) + 7
      >>> moments = Moments(3, 4)
      >>> moments.add(x, y)
      >>> scores = solve_targets(moments, rank=1, ridge=1e-9).scores(jnp.asarray(x))
      >>> bool(np.abs(scores - y).max() < 1e-3)
      True
    """
    cross = moments.products_with_y()
    squares = (cross @ cross.T).astype(np.float64)

    def with_targets(directions: np.ndarray) -> np.ndarray:
        return cross.T @ directions.astype(cross.dtype)

    return _solved(moments, squares, with_targets, moments.mean_y, rank=rank, ridge=ridge, formula=formula)


def _solved(
    moments: Moments,
    squares: np.ndarray,
    with_targets: Callable[[np.ndarray], np.ndarray],
    means: np.ndarray,
    *,
    rank: int,
    ridge: float,
    formula: Formula,
) -> LowRankPredictor:
    """From ``K K^T`` (d, d) and ``z -> K^T z`` (f, r), where K (d, f) are inputs' products with targets.

    With G the inputs' products and the ridge, and L its Cholesky factor, the coefficients of full rank are
    ``G^-1 K``, and those of rank r keep the first left singular vectors u of ``L^-1 K``: they are
    ``L^-T u (L^-1 K)^T``. No matrix of all inputs by all neurons is decomposed.
    """
    from scipy.linalg import cholesky, solve_triangular

    if formula not in get_args(Formula):
        raise ValueError(f"no formula {formula!r}; choose one of {get_args(Formula)}")
    if not (ridge > 0 and np.isfinite(ridge)):
        raise ValueError(f"ridge must be above 0, not {ridge}")
    products, mean = moments.products(), moments.mean_x
    check_rank(rank, len(mean), len(means))
    if formula == "published":
        products += moments.count * np.outer(mean, mean)
    scale = float(np.trace(products)) / len(mean) if formula == "centred" else moments.count
    least = _LEAST * moments.count * float(mean @ mean) / len(mean)
    products[np.diag_indices_from(products)] += (
        max(ridge * scale, least) or 1.0
    )  # of inputs that never differ
    lower = cholesky(products, lower=True, overwrite_a=True)
    half = solve_triangular(lower, squares, lower=True, overwrite_b=True)
    whole = solve_triangular(lower, half.T, lower=True)
    directions, sizes = leading_directions((whole + whole.T) / 2, rank)
    back = solve_triangular(lower, directions, lower=True, trans="T")
    q, p = with_targets(back), back.T
    spread = np.sqrt(np.maximum(sizes, np.finfo(np.float32).tiny)) ** 0.5
    q, p = q / spread, p * spread[:, None]  # both sides of a size, and q without a direction stays 0
    bias = means - q @ (p @ mean) if formula == "centred" else means
    return LowRankPredictor(*(jnp.asarray(part, jnp.float32) for part in (p, q, bias)))


def leading_directions(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (d, r) of the largest eigenvalues of a symmetric matrix, and those (r,), falling.

    Args:
      matrix: (d, d), without negative eigenvalues.
      rank: r.

    Example:
      >>> vectors, values = leading_directions(np.diag([1.0, 3.0, 2.0]), 2)
      >>> np.abs(vectors).argmax(axis=0).tolist(), values.tolist()
      ([1, 2], [3.0, 2.0])

    Source: randomised subspace iteration (Halko, Martinsson and Tropp 2011) for large matrices.
    """
    size = len(matrix)
    if size <= _EXACT or 4 * rank > size:
        values, vectors = np.linalg.eigh(matrix)
        return vectors[:, ::-1][:, :rank], values[::-1][:rank]
    image = matrix @ np.random.default_rng(0).normal(size=(size, rank + max(_EXTRA, rank // 8)))
    captured = 0.0
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(image)
        image = matrix @ basis
        values, mixing = np.linalg.eigh(basis.T @ image)
        values, mixing = values[::-1], mixing[:, ::-1]
        before, captured = captured, float(values[:rank].sum())
        if captured - before <= _SETTLED * captured:
            break
        image = image @ mixing
    return basis @ mixing[:, :rank], values[:rank]
