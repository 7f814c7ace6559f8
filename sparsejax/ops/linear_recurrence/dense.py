"""`dense_recurrence`: eigenstates that are mixed at every step, as the `seed` and `paper` models do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence import dense_steps
from sparsejax.ops.linear_recurrence.api import check_drive, check_state, linear_recurrence, start_state
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, cast, multiply, transition
from sparsejax.ops.linear_recurrence.dense_steps import Steps, step_matrix
from sparsejax.ops.linear_recurrence.diagonal import WORST_CONDITION, Diagonal, change_basis, diagonalise
from sparsejax.ops.linear_recurrence.truncation import Run, truncated

DenseBackend = Literal["auto", "reference", "xla", "scan", "chunked", "diagonal"]

Inputs = tuple[tuple[Array, Array | None], Array | None]
"""The drive, real and imaginary or None, and the resets."""


def dense_recurrence(
    drive: tuple[Array, Array | None],
    decay: Decay,
    mixing: Array,
    *,
    initial_state: Pair | None = None,
    reset: Array | None = None,
    truncated_steps: int | None = None,
    backend: DenseBackend = "auto",
) -> tuple[Pair, Pair]:
    """States c_t = (lambda c_{t-1} + drive_t) @ mixing of every step: row vectors, the mixing is fed back.

    Args:
      drive: real and imaginary parts (b, t, k); the imaginary part may be None for zero.
      decay: lambda, shape (k,).
      mixing: real (k, k).
      initial_state: c_{-1}, real and imaginary parts (b, k); zero when None.
      reset: (b, t) bool: lambda is zero at that step.
      truncated_steps: stop the gradient through the carried state at every multiple of this many steps.
      backend: "scan", "chunked" (powers of diag(lambda) @ mixing), or "diagonal" (the exact eigenvalue form,
        for inference with concrete arrays; falls back to "scan" when the eigenvectors are ill conditioned).

    Returns:
      States (b, t, k) in the dtype of ``drive`` and the final state (b, k) in float32 (float64 for float64).

    Raises:
      ValueError: shapes or dtypes that do not fit, an unknown backend, or "diagonal" on traced values.

    Example:
      >>> drive = jnp.ones((1, 2, 2)), None
      >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> decay = Decay(jnp.log(jnp.array([0.5, 0.25])), jnp.zeros(2))
      >>> dense_recurrence(drive, decay, swap)[0][0].tolist()
      [[[1.0, 1.0], [1.25, 1.5]]]

    Source: specs/ten.md section 3.
    """
    real, imaginary = drive
    check_drive((real, real if imaginary is None else imaginary))
    batch, length, width = real.shape
    check_state(initial_state, reset, batch=batch, length=length, width=width, steps=truncated_steps)
    for name, part in (("log_magnitude", decay.log_magnitude), ("frequency", decay.frequency)):
        if part.shape != (width,):
            raise ValueError(f"decay.{name} must have shape {(width,)}, got {part.shape}")
    if mixing.shape != (width, width):
        raise ValueError(f"mixing must have shape {(width, width)}, got {mixing.shape}")
    chosen = backends.resolve(backend, backends.DENSE_RECURRENCE, dtype=real.dtype)
    dtype = accumulator(real.dtype)
    initial = start_state(initial_state, (batch, width), dtype)
    if length == 0:
        return (real, jnp.zeros_like(real)), initial
    run = _RUNS[chosen](decay, mixing, dtype)
    inputs = (real.astype(dtype), None if imaginary is None else imaginary.astype(dtype)), reset
    if truncated_steps is None:
        states, final = run(inputs, initial)
    else:
        states, final = truncated(run, inputs, initial, steps=truncated_steps)
    return cast(states, real.dtype), final


def _by_formula(decay: Decay, mixing: Array, dtype: DTypeLike) -> Run:
    return partial(_reference, Decay(*cast(decay, dtype)), mixing.astype(dtype))


def _by(steps: Steps, decay: Decay, mixing: Array, dtype: DTypeLike) -> Run:
    return partial(_stacked, steps, Decay(*cast(decay, dtype)), mixing.astype(dtype))


def _by_eigenvectors(decay: Decay, mixing: Array, dtype: DTypeLike) -> Run:
    if any(isinstance(value, jax.core.Tracer) for value in (*decay, mixing)):
        raise ValueError(
            "dense_recurrence: backend 'diagonal' needs the values of decay and mixing; close over them "
            "instead of passing them through jit or grad, or use 'scan'"
        )
    diagonal = diagonalise(decay, mixing)
    if diagonal.condition > WORST_CONDITION:
        return _by(dense_steps.scan, decay, mixing, dtype)
    return partial(_diagonal, diagonal, np.asarray(mixing, np.float64))


def _reference(decay: Decay, mixing: Array, inputs: Inputs, initial: Pair) -> tuple[Pair, Pair]:
    """The formula as it is written, one step after another."""
    (real, imaginary), reset = inputs
    factor = transition(decay, mixing.dtype)
    keep = None if reset is None else ~reset.T[..., None]

    def step(carry: Pair, at: tuple[Pair, Array | None]) -> tuple[Pair, Pair]:
        here, kept = at
        carried = multiply(factor, carry)
        if kept is not None:
            carried = jnp.where(kept, carried[0], 0), jnp.where(kept, carried[1], 0)
        before = add(carried, here)
        state = before[0] @ mixing, before[1] @ mixing
        return state, state

    imaginary = jnp.zeros_like(real) if imaginary is None else imaginary
    time_major = jnp.swapaxes(real, 0, 1), jnp.swapaxes(imaginary, 0, 1)
    final, states = jax.lax.scan(step, initial, (time_major, keep))
    return (jnp.swapaxes(states[0], 0, 1), jnp.swapaxes(states[1], 0, 1)), final


def _stacked(steps: Steps, decay: Decay, mixing: Array, inputs: Inputs, initial: Pair) -> tuple[Pair, Pair]:
    (real, imaginary), reset = inputs
    mixed = jnp.matmul(real, mixing, precision="highest")
    other = jnp.zeros_like(mixed) if imaginary is None else jnp.matmul(imaginary, mixing, precision="highest")
    stacked = jnp.concatenate((mixed, other), axis=-1)
    states, final = steps(stacked, step_matrix(decay, mixing), jnp.concatenate(initial, axis=-1), reset)
    return _halves(states), _halves(final)


def _halves(stacked: Array) -> Pair:
    real, imaginary = jnp.split(stacked, 2, axis=-1)
    return real, imaginary


def _diagonal(diagonal: Diagonal, mixing: np.ndarray, inputs: Inputs, initial: Pair) -> tuple[Pair, Pair]:
    drive, reset = inputs
    decay = Decay(*(jnp.asarray(part, initial[0].dtype) for part in diagonal.decay))
    states, final = linear_recurrence(
        change_basis(drive, (mixing @ diagonal.into[0], mixing @ diagonal.into[1])),
        decay,
        initial_state=change_basis(initial, diagonal.into),
        reset=reset,
    )
    return change_basis(states, diagonal.out_of), change_basis(final, diagonal.out_of)


_RUNS: dict[str, Callable[[Decay, Array, DTypeLike], Run]] = {
    "reference": _by_formula,
    "scan": partial(_by, dense_steps.scan),
    "chunked": partial(_by, dense_steps.chunked),
    "diagonal": _by_eigenvectors,
}
