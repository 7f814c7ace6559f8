"""The dense feed-forward part in PyTorch, in both layouts of its input weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

FFN = Callable[[Any], Any]
"""A tuple (inputs, input weights, output weights) of tensors to the outputs."""


def linear_layers(tensors: Any) -> Any:
    """With weights (d_ff, d_model) and (d_model, d_ff), as two ``nn.Linear`` hold them."""
    from torch.nn.functional import gelu, linear

    inputs, w_in, w_out = tensors
    return linear(gelu(linear(inputs, w_in)), w_out)


def products(tensors: Any) -> Any:
    """With weights (d_model, d_ff) and (d_ff, d_model), multiplied as they lie."""
    from torch import mm
    from torch.nn.functional import gelu

    inputs, w_in, w_out = tensors
    return mm(gelu(mm(inputs, w_in)), w_out)


LAYOUTS: dict[str, tuple[FFN, bool, bool]] = {
    "W1 (d_ff, d_model)": (linear_layers, False, True),
    "W1 (d_model, d_ff)": (products, True, False),
}
"""By the layout of the input weights: the function, and whether it wants the rows of neurons ``w_in``
(d_ff, d_model) and ``w_out`` (d_ff, d_model) transposed."""


def tensor(
    array: np.ndarray, *, transposed: bool = False, dtype: str = "float32", device: str = "cpu"
) -> Any:
    """A contiguous copy."""
    import torch

    source = np.ascontiguousarray(array.T if transposed else array, np.float32)
    copied = torch.from_numpy(source.copy() if source is array else source)
    return copied.to(device=device, dtype=getattr(torch, dtype))
