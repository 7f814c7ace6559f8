"""A one-hidden-layer net as plain NumPy arrays, which every peer is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SparseWeights:
    """K inputs per hidden neuron: indices (h, k) int64, w1 (h, k), b1 (h,), w2 (o, h), b2 (o,)."""

    indices: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray

    def astype(self, dtype: Any) -> SparseWeights:
        """The same net in another precision."""
        return SparseWeights(
            self.indices, *(array.astype(dtype) for array in (self.w1, self.b1, self.w2, self.b2))
        )

    def on_columns(self, columns: np.ndarray) -> SparseWeights:
        """The net over a matrix that holds only ``columns``, in that order."""
        position = {int(column): number for number, column in enumerate(columns)}
        indices = np.vectorize(position.__getitem__, otypes=[np.int64])(self.indices)
        return SparseWeights(indices, self.w1, self.b1, self.w2, self.b2)


@dataclass(frozen=True)
class DenseWeights:
    """Every input of every hidden neuron: w1 (h, i), b1 (h,), w2 (o, h), b2 (o,)."""

    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray

    def astype(self, dtype: Any) -> DenseWeights:
        """The same net in another precision."""
        return DenseWeights(*(array.astype(dtype) for array in (self.w1, self.b1, self.w2, self.b2)))


def sparse_weights(params: Any) -> SparseWeights:
    """From the parameters of the published sparse net."""
    first, second = params["layer_0"], params["layer_1"]
    return SparseWeights(
        np.asarray(first["indices"]).astype(np.int64),
        np.array(first["weights"]),
        np.array(first["bias"]),
        np.ascontiguousarray(np.asarray(second["kernel"]).T),
        np.array(second["bias"]),
    )


def dense_weights(params: Any) -> DenseWeights:
    """From the parameters of the published dense net."""
    first, second = params["layer_0"], params["layer_1"]
    kernels = (np.ascontiguousarray(np.asarray(layer["kernel"]).T) for layer in (first, second))
    w1, w2 = kernels
    return DenseWeights(w1, np.array(first["bias"]), w2, np.array(second["bias"]))
