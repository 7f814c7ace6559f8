"""Random arrays that no program has to be compiled for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int) -> jax.Array:
    """Float32 of a standard normal distribution, of another sequence than ``jax.random.normal``."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
