"""An FFN of two matrices in float64 NumPy, made of nothing else here: what the fast ones are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from sparsejax.models.sprout.config import SproutFFNConfig


def _erf(values: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(values)


_FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "identity": np.asarray,
}


def reference_ffn(
    config: SproutFFNConfig, ffn: Mapping[str, Any], inputs: ArrayLike, used: np.ndarray | None = None
) -> np.ndarray:
    """``W2 gelu(W1 x)`` token by token; of the neurons used, only their rows and columns are read.

    Args:
      config: of the FFN.
      ffn: its parameters, without a DeepSets part.
      inputs: (n, d).
      used: (n, f) bool; None is all neurons.

    Returns:
      (n, d) float64.

    Example:
      >>> ffn, first = {"w_in": np.eye(2), "w_out": np.eye(2)}, np.asarray([[True, False]])
      >>> reference_ffn(SproutFFNConfig(2, 2), ffn, np.asarray([[1.0, 2]]), first).round(3)
      array([[0.841, 0.   ]])

    Source: specs/sprout.md section 1.2.
    """
    w1, w2 = np.asarray(ffn["w_in"], np.float64), np.asarray(ffn["w_out"], np.float64)
    b1 = np.asarray(ffn.get("b_in", np.zeros(len(w1))), np.float64)
    b2 = np.asarray(ffn.get("b_out", np.zeros(w2.shape[1])), np.float64)
    function, inputs = _FUNCTIONS[config.activation], np.asarray(inputs, np.float64)
    if used is None:
        return function(inputs @ w1.T + b1) @ w2 + b2
    rows = (np.flatnonzero(row) for row in used)
    pairs = zip(inputs, rows, strict=True)
    return np.stack([function(w1[some] @ x + b1[some]) @ w2[some] + b2 for x, some in pairs])
