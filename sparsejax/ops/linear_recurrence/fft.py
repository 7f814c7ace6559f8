"""The recurrence with one decay as a convolution with lambda^n, by FFT."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.adjoint import with_adjoint
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, cast, multiply
from sparsejax.ops.linear_recurrence.powers import powers


def _forward(
    drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
) -> tuple[Pair, Pair]:
    del reset  # `api` refuses it for this backend, and a selective decay too
    dtype = accumulator(drive[0].dtype)
    length = drive[0].shape[1]
    wide = cast(drive, dtype)
    if reverse:
        wide = jnp.flip(wide[0], 1), jnp.flip(wide[1], 1)
    table = powers(decay, jnp.arange(length + 1))
    states = _convolve((table[0][:-1], table[1][:-1]), wide)
    later = multiply((table[0][1:], table[1][1:]), (initial[0][:, None], initial[1][:, None]))
    states = add(states, later)
    final = states[0][:, -1], states[1][:, -1]
    if reverse:
        states = jnp.flip(states[0], 1), jnp.flip(states[1], 1)
    return cast(states, drive[0].dtype), final


def _convolve(kernel: Pair, drive: Pair) -> Pair:
    """The first t elements of the causal convolution of (t, k) and (b, t, k)."""
    length = drive[0].shape[1]
    padded = 1 << (2 * length - 1).bit_length()
    spectrum = jnp.fft.fft(lax.complex(*kernel), padded, axis=0)
    product = spectrum * jnp.fft.fft(lax.complex(*drive), padded, axis=1)
    states = jnp.fft.ifft(product, axis=1)[:, :length]
    return states.real, states.imag


run = with_adjoint(_forward)
"""Cost: 20 log2(2T) flops per state and at least 6 passes over twice the length (about 130 bytes per state in
float32), whatever lambda is; no dependent steps. The rounding error is relative to the largest state, not to
each one. See `adjoint.Run` for the arguments; a selective decay or a reset is not for this backend.
"""
