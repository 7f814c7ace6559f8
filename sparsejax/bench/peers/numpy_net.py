"""The forward pass in NumPy: plain expressions, and in place.

In place after one gather is the fastest form found. Preallocated scratch with ``np.take(out=)`` and
blocks that fit the cache were tried and are slower (features first 0.7 -> 0.8-15 ms, rows first no gain
at 4096 and 0-25 % at 65,536, for which `sparse_rows_blocked` is there).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsejax.bench.peers.weights import DenseWeights, SparseWeights

Forward = Callable[[np.ndarray], np.ndarray]

_BLOCK_ROWS = 2048


def sparse_rows_plain(net: SparseWeights) -> Forward:
    """(b, i) -> (b, o) as one expression."""

    def forward(x: np.ndarray) -> np.ndarray:
        hidden = np.tanh((x[:, net.indices] * net.w1).sum(axis=-1) + net.b1)
        return np.tanh(hidden @ net.w2.T + net.b2)

    return forward


def sparse_rows(net: SparseWeights) -> Forward:
    """(b, i) -> (b, o), one gather per slot, everything after it in place."""
    slots = _slots(net)
    output = np.ascontiguousarray(net.w2.T)

    def forward(x: np.ndarray) -> np.ndarray:
        hidden = None
        for indices, weights in slots:
            term = x[:, indices]
            term *= weights
            hidden = term if hidden is None else np.add(hidden, term, out=hidden)
        hidden += net.b1
        np.tanh(hidden, out=hidden)
        result = hidden @ output
        result += net.b2
        return np.tanh(result, out=result)

    return forward


def sparse_rows_blocked(net: SparseWeights) -> Forward:
    """`sparse_rows` in blocks of rows whose temporaries stay in the cache."""
    inner = sparse_rows(net)

    def forward(x: np.ndarray) -> np.ndarray:
        result = np.empty((len(x), len(net.w2)), x.dtype)
        for start in range(0, len(x), _BLOCK_ROWS):
            result[start : start + _BLOCK_ROWS] = inner(x[start : start + _BLOCK_ROWS])
        return result

    return forward


def sparse_features_first_plain(net: SparseWeights) -> Forward:
    """(i, b) -> (o, b) as one expression."""

    def forward(x: np.ndarray) -> np.ndarray:
        hidden = np.tanh((x[net.indices] * net.w1[..., None]).sum(axis=1) + net.b1[:, None])
        return np.tanh(net.w2 @ hidden + net.b2[:, None])

    return forward


def sparse_features_first(net: SparseWeights) -> Forward:
    """(i, b) -> (o, b), one gather of contiguous lines per slot, everything after it in place."""
    slots = [(indices, weights[:, None]) for indices, weights in _slots(net)]

    def forward(x: np.ndarray) -> np.ndarray:
        hidden = None
        for indices, weights in slots:
            term = x[indices]
            term *= weights
            hidden = term if hidden is None else np.add(hidden, term, out=hidden)
        hidden += net.b1[:, None]
        np.tanh(hidden, out=hidden)
        result = net.w2 @ hidden
        result += net.b2[:, None]
        return np.tanh(result, out=result)

    return forward


def dense_rows(net: DenseWeights) -> Forward:
    """(b, i) -> (b, o): two matrix products (BLAS), the rest in place."""
    first, output = np.ascontiguousarray(net.w1.T), np.ascontiguousarray(net.w2.T)

    def forward(x: np.ndarray) -> np.ndarray:
        hidden = x @ first
        hidden += net.b1
        np.tanh(hidden, out=hidden)
        result = hidden @ output
        result += net.b2
        return np.tanh(result, out=result)

    return forward


def _slots(net: SparseWeights) -> list[tuple[np.ndarray, np.ndarray]]:
    count = net.indices.shape[1]
    return [
        (np.ascontiguousarray(net.indices[:, k]), np.ascontiguousarray(net.w1[:, k])) for k in range(count)
    ]
