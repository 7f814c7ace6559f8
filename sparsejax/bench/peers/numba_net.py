"""The forward pass as numba loops: the published code, features first too, and with a parallel batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from sparsejax.bench.peers.weights import DenseWeights, SparseWeights

Forward = Callable[[np.ndarray], np.ndarray]


def sparse_rows(net: SparseWeights, *, parallel: bool = False) -> Forward:
    """(b, i) -> (b,): the published loop (one output), with fastmath.

    Args:
      net: with one output.
      parallel: the batch loop in parallel (``prange``), which pays with more than one thread only.

    Raises:
      ModuleNotFoundError: numba is not installed.
    """
    loop = _loops(parallel)["sparse_rows"]
    arrays = (net.indices, net.w1, net.b1, net.w2[0].copy(), net.b2[0])
    return lambda x: loop(x, *arrays)


def sparse_features_first(net: SparseWeights, *, parallel: bool = False) -> Forward:
    """(i, b) -> (b,): the same loop over contiguous lines."""
    loop = _loops(parallel)["sparse_features_first"]
    arrays = (net.indices, net.w1, net.b1, net.w2[0].copy(), net.b2[0])
    return lambda x: loop(x, *arrays)


def dense_rows(net: DenseWeights, *, parallel: bool = False) -> Forward:
    """(b, i) -> (b,): the published dense loop (one output)."""
    loop = _loops(parallel)["dense_rows"]
    arrays = (net.w1, net.b1, net.w2[0].copy(), net.b2[0])
    return lambda x: loop(x, *arrays)


@lru_cache(maxsize=2)
def _loops(parallel: bool) -> dict[str, Any]:
    import numba

    jit = numba.njit(fastmath=True, parallel=parallel)
    batch = numba.prange if parallel else range

    @jit
    def sparse_rows(x, indices, w1, b1, w2, b2):  # noqa: PLR0917 numba takes arrays
        output = np.empty(x.shape[0], np.float32)
        for row in batch(x.shape[0]):
            total = b2
            for h in range(indices.shape[0]):
                before = b1[h]
                for k in range(indices.shape[1]):
                    before += x[row, indices[h, k]] * w1[h, k]
                total += np.tanh(before) * w2[h]
            output[row] = np.tanh(total)
        return output

    @jit
    def sparse_features_first(x, indices, w1, b1, w2, b2):  # noqa: PLR0917
        output = np.empty(x.shape[1], np.float32)
        for column in batch(x.shape[1]):
            total = b2
            for h in range(indices.shape[0]):
                before = b1[h]
                for k in range(indices.shape[1]):
                    before += x[indices[h, k], column] * w1[h, k]
                total += np.tanh(before) * w2[h]
            output[column] = np.tanh(total)
        return output

    @jit
    def dense_rows(x, w1, b1, w2, b2):
        output = np.empty(x.shape[0], np.float32)
        for row in batch(x.shape[0]):
            total = b2
            for h in range(w1.shape[0]):
                before = b1[h]
                for i in range(w1.shape[1]):
                    before += x[row, i] * w1[h, i]
                total += np.tanh(before) * w2[h]
            output[row] = np.tanh(total)
        return output

    return {
        "sparse_rows": sparse_rows,
        "sparse_features_first": sparse_features_first,
        "dense_rows": dense_rows,
    }
