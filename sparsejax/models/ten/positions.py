"""The fixed table of sines and cosines."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


def sinusoidal_init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Positions as sines (even columns) and cosines (odd columns) of wavelengths from 2 pi to 10,000 * 2 pi.

    Args:
      key: not used.
      shape: (positions, d).
      dtype: of the table.

    Example:
      >>> sinusoidal_init(jax.random.key(0), (2, 2)).round(3).tolist()
      [[0.0, 1.0], [0.8410000205039978, 0.5400000214576721]]

    Source: Vaswani et al. 2017, section 3.5.
    """
    del key
    rows, width = shape
    rates = jnp.exp(jnp.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = jnp.arange(rows)[:, None] * rates
    table = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(rows, -1)
    return table[:, :width].astype(dtype)
