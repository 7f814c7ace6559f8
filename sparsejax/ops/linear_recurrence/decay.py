"""The transition of a recurrence and the arithmetic of (real, imaginary) pairs."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

Pair = tuple[Array, Array]
"""A complex array as its real and imaginary parts, of one shape and dtype."""


class Decay(NamedTuple):
    """The factor lambda = exp(log_magnitude + i frequency) that carries a state to the next step.

    Attributes:
      log_magnitude: (k,) for every step alike, or (b, t, k) for each step its own.
      frequency: radians per step, of the same shape.

    Example:
      >>> decay = Decay(jnp.log(jnp.array([0.5])), jnp.array([jnp.pi / 2]))
      >>> np.round(np.array(transition(decay, jnp.float32)), 6).tolist()
      [[-0.0], [0.5]]
    """

    log_magnitude: Array
    frequency: Array

    @property
    def selective(self) -> bool:
        """Whether each step has its own factor."""
        return self.log_magnitude.ndim > 1


def transition(decay: Decay, dtype: DTypeLike) -> Pair:
    """Lambda as a pair, of the shape of ``decay``."""
    magnitude = jnp.exp(decay.log_magnitude.astype(dtype))
    frequency = decay.frequency.astype(dtype)
    return magnitude * jnp.cos(frequency), magnitude * jnp.sin(frequency)


def multiply(a: Pair, b: Pair) -> Pair:
    """The complex product of two pairs; shapes broadcast."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def add(a: Pair, b: Pair) -> Pair:
    """The sum of two pairs."""
    return a[0] + b[0], a[1] + b[1]


def cast(pair: Pair, dtype: DTypeLike) -> Pair:
    """Both parts in ``dtype``."""
    return pair[0].astype(dtype), pair[1].astype(dtype)


def conjugate(decay: Decay) -> Decay:
    """The decay whose factor is the complex conjugate."""
    return Decay(decay.log_magnitude, -decay.frequency)


def kept_transition(decay: Decay, reset: Array | None, dtype: DTypeLike) -> Pair:
    """Lambda, zero where ``reset``: (b, t, k), or shapes (1, 1, k) and (b, t, k) that broadcast to it."""
    real, imaginary = transition(decay, dtype)
    if not decay.selective:
        real, imaginary = real[None, None], imaginary[None, None]
    if reset is None:
        return real, imaginary
    return jnp.where(reset[..., None], 0, real), jnp.where(reset[..., None], 0, imaginary)
