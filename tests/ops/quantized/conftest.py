"""Fixtures of the quantised products' tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from sparsejax.ops.quantized import FORMATS, QuantizedTensor, encode

HALVES = {"q2_k": (80, 82), "q3_k": (108,), "q5_k": (0, 2)}


@cache
def _raw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    if name not in HALVES:
        return encode(rng.normal(size=shape) / 8, name)
    layout = FORMATS[name]
    blocks = rng.integers(0, 256, (np.prod(shape) // layout.block, layout.bytes), np.uint8)
    for start in HALVES[name]:
        sizes = (rng.normal(size=len(blocks)) / 1000).astype(np.float16)
        blocks[:, start : start + 2] = sizes[:, None].view(np.uint8)
    return blocks


@pytest.fixture
def matrix() -> Callable[..., QuantizedTensor]:
    """A random matrix in a format, encoded or, where there is no encoder, of random bytes."""

    def make(name: str, *shape: int, order: str = "rows") -> QuantizedTensor:
        return QuantizedTensor.from_bytes(_raw(name, shape), name, shape, order=order)

    return make
