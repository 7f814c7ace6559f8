"""A float32 sine in plain arithmetic, which vectorises where the library routine is scalar."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sparsejax.typing import Scalars

_PI_PARTS = (3.140625, 9.67502593994140625e-4, 1.5099579909783764e-7)
"""Their sum is pi to 1e-14; the first two have so few bits that products with whole numbers are exact."""

_SINE_SERIES = (-1.66666571e-01, 8.33301635e-03, -1.98065467e-04, 2.59990239e-06)
"""(sin r - r) / r^3 in powers of r^2: fitted on [-pi/2, pi/2], error of the sine 5e-9."""


def fast_sine(x: Scalars, quarter_turns: int = 0) -> Scalars:
    r"""float32 sin(x), or cos(x) with one quarter turn, in arithmetic that vectorises.

    Within 1.5e-7 of the exact value up to \|x\| = 3000 and 2e-6 up to 20,000; beyond, the error grows to
    that of rounding x itself (0.06 at 1e6), and the result stays within [-1, 1]. The nets' own domain
    needs 70. `jnp.sin` is a scalar routine on CPU: 10 ns per value against 0.8 ns here.

    Args:
      x: any shape, float32, in radians.
      quarter_turns: 0 for the sine, 1 for the cosine.

    Returns:
      the shape of x; NaN for NaN and infinity.

    Example:
      >>> float(fast_sine(jnp.float32(np.pi / 2)))
      1.0

    Source: Cody and Waite's three-part reduction by multiples of pi, then an odd polynomial.
    """
    half = np.float32(0.5 * quarter_turns)
    turns = jnp.round(x * np.float32(1 / np.pi) - half)
    rest = x
    for part in _PI_PARTS:
        rest = rest - (turns + half) * np.float32(part)
    rest = jnp.clip(rest, np.float32(-np.pi / 2), np.float32(np.pi / 2))
    square = rest * rest
    series = jnp.zeros_like(x)
    for coefficient in reversed(_SINE_SERIES):
        series = series * square + np.float32(coefficient)
    value = rest + rest * square * series
    # cos((n + 1/2) pi + r) = -(-1)^n sin(r)
    negative = (turns.astype(jnp.int32) & 1) != quarter_turns
    return jnp.where(negative, -value, value)
