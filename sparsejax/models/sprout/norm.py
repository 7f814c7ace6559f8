"""The normalisation of every part of the family."""

from __future__ import annotations

import flax.linen as nn
import jax

_EPSILON = 1e-5


def layer_norm(name: str, dtype: jax.typing.DTypeLike | None) -> nn.LayerNorm:
    """Layer normalisation as published; statistics in float32 at least, by two passes."""
    return nn.LayerNorm(_EPSILON, dtype=dtype, use_fast_variance=False, name=name)
