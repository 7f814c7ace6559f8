"""How alike neurons are: cosines of their weight vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_THRESHOLDS = (0.3, 0.5, 0.7)
_PAIRS = 10


class Similarity(NamedTuple):
    """Cosines between the neurons of a layer.

    Attributes:
      matrix: (f, f).
      max: of two different neurons.
      mean: over all pairs.
      min: of two different neurons.
      pairs: (p, 2) the most similar neurons, each pair once, the lower number first.
      values: (p,) their cosines.
      above: number of pairs by threshold.
    """

    matrix: np.ndarray
    max: float
    mean: float
    min: float
    pairs: np.ndarray
    values: np.ndarray
    above: dict[float, int]


def neuron_similarity(
    vectors: Any, *, top: int = _PAIRS, thresholds: Sequence[float] = _THRESHOLDS, published: bool = False
) -> Similarity:
    """Cosine of every two neurons.

    Args:
      vectors: (f, d) of the neurons: ``w_in`` of a layer, or ``w_out``.
      top: pairs to name.
      thresholds: pairs with a larger cosine are counted.
      published: set the diagonal to 0 and include it in max, mean and min, as the published script does.

    Returns:
      `Similarity`; zero vectors are similar to nothing.

    Raises:
      ValueError: ``vectors`` is no matrix of two rows at least.

    Example:
      >>> found = neuron_similarity([[1.0, 0], [2, 0], [0, 1]], top=1)
      >>> found.pairs.tolist(), found.above, round(found.mean, 3)
      ([[0, 1]], {0.3: 1, 0.5: 1, 0.7: 1}, 0.333)

    Source: specs/sprout.md section 5 (``analyze_neuron_usage.py``).
    """
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"vectors must be (neurons, d) of two neurons at least, not {vectors.shape}")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms, norms, 1)
    matrix = np.clip(unit @ unit.T, -1, 1)
    rows, columns = np.triu_indices(len(vectors), 1)
    cosines = matrix[rows, columns]
    most = _largest(cosines, top)
    np.fill_diagonal(matrix, 0 if published else 1)
    told = matrix if published else cosines
    return Similarity(
        matrix,
        float(told.max()),
        float(told.mean(dtype=np.float64)),
        float(told.min()),
        np.stack([rows[most], columns[most]], axis=1),
        cosines[most],
        {threshold: int((cosines > threshold).sum()) for threshold in thresholds},
    )


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest, in descending order."""
    count = min(count, len(values))
    chosen = np.argpartition(-values, count - 1)[:count] if count else np.zeros(0, int)
    return chosen[np.lexsort((chosen, -values[chosen]))]
