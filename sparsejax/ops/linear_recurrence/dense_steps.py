"""The dense recurrence on stacked real states, x_t = x_{t-1} A + e_t: by steps, in chunks, and its adjoint.

x is (real, imaginary) side by side, so A is a real (2k, 2k) matrix. The gradient is the same recurrence over
reversed time with A transposed, and A's own gradient is one product over all steps at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.linear_recurrence.decay import Decay, transition

CHUNK = 32

Steps = Callable[[Array, Array, Array, Array | None], tuple[Array, Array]]
"""(drive (b, t, m), matrix (m, m), initial (b, m), reset (b, t)) -> states (b, t, m), final (b, m)."""

Kept = tuple[Array, Array, Array, Array | None]
"""States, matrix, initial state and resets."""


def step_matrix(decay: Decay, mixing: Array) -> Array:
    """A with [real, imaginary] @ A = [real, imaginary] of (lambda c) @ mixing; (2k, 2k)."""
    real, imaginary = (part[:, None] * mixing for part in transition(decay, mixing.dtype))
    return jnp.block([[real, imaginary], [-imaginary, real]])


def _with_adjoint(steps: Steps) -> Steps:
    @jax.custom_vjp
    def recurrence(drive: Array, matrix: Array, initial: Array, reset: Array | None) -> tuple[Array, Array]:
        return steps(drive, matrix, initial, reset)

    def forward(
        drive: Array, matrix: Array, initial: Array, reset: Array | None
    ) -> tuple[tuple[Array, Array], Kept]:
        states, final = recurrence(drive, matrix, initial, reset)
        return (states, final), (states, matrix, initial, reset)

    def backward(kept: Kept, cotangents: tuple[Array, Array]) -> tuple[Array, Array, Array, None]:
        states, matrix, initial, reset = kept
        source = cotangents[0].at[:, -1].add(cotangents[1])
        # Reversed, each step is cut where the one after it restarts; the first one has nothing to cut.
        later = None if reset is None else jnp.concatenate((reset[:, 1:], reset[:, :1]), axis=1)[:, ::-1]
        reversed_gradient, _ = recurrence(source[:, ::-1], matrix.T, jnp.zeros_like(initial), later)
        gradient = reversed_gradient[:, ::-1]
        before = jnp.concatenate((initial[:, None], states[:, :-1]), axis=1)
        if reset is not None:
            before = jnp.where(reset[..., None], 0, before)
        d_matrix = jnp.einsum("btm,btn->mn", before, gradient, precision="highest")
        d_initial = jnp.matmul(gradient[:, 0], matrix.T, precision="highest")
        if reset is not None:
            d_initial = jnp.where(reset[:, :1], 0, d_initial)
        return gradient, d_matrix, d_initial, None

    recurrence.defvjp(forward, backward)
    return recurrence


def _by_steps(drive: Array, matrix: Array, initial: Array, reset: Array | None) -> tuple[Array, Array]:
    def step(carry: Array, at: tuple[Array, Array | None]) -> tuple[Array, Array]:
        here, restart = at
        carried = jnp.matmul(carry, matrix, precision="highest")
        state = here + (carried if restart is None else jnp.where(restart, 0, carried))
        return state, state

    restarts = None if reset is None else reset.T[..., None]
    final, states = jax.lax.scan(step, initial, (jnp.swapaxes(drive, 0, 1), restarts))
    return jnp.swapaxes(states, 0, 1), final


def _by_chunks(drive: Array, matrix: Array, initial: Array, reset: Array | None) -> tuple[Array, Array]:
    batch, length, width = drive.shape
    if length <= CHUNK:
        return _by_steps(drive, matrix, initial, reset)
    count = -(-length // CHUNK)
    late = count * CHUNK - length
    padded = jnp.pad(drive, ((0, 0), (0, late), (0, 0))).reshape(batch * count, CHUNK, width)
    restarts = None if reset is None else jnp.pad(reset, ((0, 0), (0, late))).reshape(batch * count, CHUNK)
    nothing = jnp.zeros_like(padded[:, 0])
    _, ends = _by_steps(padded, matrix, nothing, restarts)
    cut = None if restarts is None else restarts.any(axis=1).reshape(batch, count)
    entered, _ = _by_steps(ends.reshape(batch, count, width), _power(matrix, CHUNK), initial, cut)
    entering = jnp.concatenate((initial[:, None], entered[:, :-1]), axis=1)
    states, _ = _by_steps(padded, matrix, entering.reshape(batch * count, width), restarts)
    states = states.reshape(batch, count * CHUNK, width)[:, :length]
    return states, states[:, -1]


def _power(matrix: Array, exponent: int) -> Array:
    """matrix^exponent for a power of two, by squaring."""
    while exponent > 1:
        matrix = jnp.matmul(matrix, matrix, precision="highest")
        exponent //= 2
    return matrix


scan = _with_adjoint(_by_steps)
"""Cost: 8 b k^2 flops per step and 4 k^2 matrix elements read in each of T dependent steps."""

chunked = _with_adjoint(_by_chunks)
"""Cost: twice the flops of `scan`, as products with T / c times as many rows; 2 c + T / c dependent steps.

Chunks are run from zero for their ends, the ends are carried by the c-th power of A, and the chunks are run
again from what enters them.
"""
