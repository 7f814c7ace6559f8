"""The dense feed-forward part with ReLU, with gates or without, in PyTorch and in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Dense(NamedTuple):
    """Weights of one layer, arrays or tensors.

    Attributes:
      w_in: (f, d).
      w_out: (f, o), or (o, f) as ``nn.Linear`` holds it.
      w_gate: (f, d), or None.
      bias: (f,) of the gate, or without gates of the inputs.
    """

    w_in: Any
    w_out: Any
    w_gate: Any
    bias: Any


def torch_linear(layer: Dense, inputs: Any) -> Any:
    """(n, d) -> (n, o) with the output weights (o, f)."""
    from torch.nn.functional import linear

    return linear(_torch_hidden(layer, inputs), layer.w_out)


def torch_rows(layer: Dense, inputs: Any) -> Any:
    """(n, d) -> (n, o) with the output weights (f, o)."""
    from torch import mm

    return mm(_torch_hidden(layer, inputs), layer.w_out)


def numpy_rows(layer: Dense, inputs: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, o) with the output weights (f, o), in place where it helps."""
    sums = inputs @ (layer.w_in if layer.w_gate is None else layer.w_gate).T
    sums += layer.bias
    np.maximum(sums, 0, out=sums)
    if layer.w_gate is not None:
        sums *= inputs @ layer.w_in.T
    return sums @ layer.w_out


def tensors(layer: Dense, *, transposed: bool) -> Dense:
    """Tensors over the memory of arrays, the output weights transposed into a copy if wanted."""
    import torch

    parts: list[Any] = [None if part is None else torch.from_dlpack(part) for part in layer]
    return Dense(parts[0], parts[1].T.contiguous() if transposed else parts[1], *parts[2:])


def without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in inference mode."""
    import torch

    def call(*arguments: Any) -> Any:
        with torch.inference_mode():
            return function(*arguments)

    return call


def _torch_hidden(layer: Dense, inputs: Any) -> Any:
    from torch.nn.functional import linear

    gate = linear(inputs, layer.w_in if layer.w_gate is None else layer.w_gate, layer.bias).relu_()
    return gate if layer.w_gate is None else gate.mul_(linear(inputs, layer.w_in))
