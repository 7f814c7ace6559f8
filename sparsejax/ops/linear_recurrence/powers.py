"""lambda^n for large n in float32, by phases counted in turns.

``n * frequency`` in float32 is off by 0.24 radians at n = 2^20, and repeated squaring by 0.06. Here the
frequency in turns is a sum of three floats, of which two have 12 significant bits; n is split in two halves
of 10 bits. Every product of the halves is exact, whole turns are dropped after each, and what is left is
below one turn, where float32 is good to 1e-7. Because the products are exact it does not matter whether the
compiler fuses them with the sums.

Source: specs/ten.md section 9.2.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.ops.linear_recurrence.decay import Decay, Pair

_SMALLEST_LOG = -1e4  # exp of it is 0 in every dtype, and 0 * it is 0, which 0 * -inf is not
_UPPER_12_BITS = np.uint32(0xFFFFF000)


def powers(decay: Decay, exponents: Array | np.ndarray) -> Pair:
    """lambda^n of every exponent.

    Args:
      decay: (k,).
      exponents: (n,) int32, at least 0 and below 2^22.

    Returns:
      (n, k) pair in the dtype of ``decay``: phases are within 1e-5 radians for n < 2^20.

    Example:
      >>> quarter = Decay(jnp.zeros(1), jnp.array([np.pi / 2], jnp.float32))
      >>> real, _ = powers(quarter, jnp.array([0, 1, 2]))
      >>> np.round(np.array(real[:, 0]), 5).tolist()
      [1.0, -0.0, -1.0]
    """
    log_magnitude = jnp.maximum(decay.log_magnitude, _SMALLEST_LOG)
    magnitude = jnp.exp(exponents[:, None].astype(log_magnitude.dtype) * log_magnitude)
    angle = phases(decay.frequency, exponents)
    return magnitude * jnp.cos(angle), magnitude * jnp.sin(angle)


@jax.custom_jvp
def phases(frequency: Array, exponents: Any) -> Array:
    """``exponents * frequency`` without whole turns, (n, k) radians in [-pi, pi]."""
    if frequency.dtype == jnp.float64:
        turns = exponents[:, None] * (frequency / (2 * np.pi))
        return 2 * np.pi * _fraction(turns)
    low = (exponents & 1023)[:, None].astype(jnp.float32)
    high = exponents[:, None].astype(jnp.float32) - low
    upper, middle, rest = _turns(frequency)
    exact = (_fraction(count * part) for count in (low, high) for part in (upper, middle))
    turns = sum(exact, start=_fraction((low + high) * rest))
    return np.float32(2 * np.pi) * _fraction(turns)


@phases.defjvp
def _phases_jvp(primals: tuple[Array, Any], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    frequency, exponents = primals
    return phases(frequency, exponents), exponents[:, None] * tangents[0]


def _fraction(turns: Array) -> Array:
    return turns - jnp.round(turns)


def _upper(x: Array) -> Array:
    """The first 12 significant bits of ``x``; what they leave of ``x`` is exact and has 12 bits too."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & _UPPER_12_BITS, jnp.float32)


def _split_constant(value: float) -> tuple[np.float32, ...]:
    """``value`` as three floats of 12 bits and one of 24."""
    parts = []
    for _ in range(3):
        bits = np.float32(value).view(np.uint32) & _UPPER_12_BITS
        parts.append(bits.view(np.float32))
        value -= float(parts[-1])
    return (*parts, np.float32(value))


_TURNS_PER_RADIAN = _split_constant(1 / (2 * np.pi))


def _turns(frequency: Array) -> tuple[Array, Array, Array]:
    """The frequency in turns as a sum of two floats of 12 bits and one of 24, exact to about 60 bits."""
    a, b, c, d = _TURNS_PER_RADIAN
    upper = _upper(frequency)
    lower = frequency - upper
    products = (upper * a, upper * b, lower * a)
    tail = upper * c + lower * b + (lower * c + frequency * d)
    first = _upper(_left(products, ()) + tail)
    second = _upper(_left(products, (first,)) + tail)
    return first, second, _left(products, (first, second)) + tail


def _left(products: tuple[Array, Array, Array], taken: tuple[Array, ...]) -> Array:
    """What remains of the products; in this order every difference and sum is exact or below 2^-48."""
    largest, *others = products
    for part in taken:
        largest = largest - part
    return (largest + others[0]) + others[1]
