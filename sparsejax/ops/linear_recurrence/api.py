"""`linear_recurrence`: one signature over every backend."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence import associative, chunked, fft, reference, scan
from sparsejax.ops.linear_recurrence.adjoint import Run
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, cast, multiply, transition
from sparsejax.ops.linear_recurrence.truncation import truncated

RecurrenceBackend = Literal[
    backends.Backend, "scan", "associative", "chunked", "fft", "pallas_gpu", "pallas_tpu"
]
"""Names that `linear_recurrence` accepts."""

_RUNS: dict[str, Run] = {
    "reference": reference.run,
    "scan": scan.run,
    "associative": associative.run,
    "chunked": chunked.run,
    "fft": fft.run,
}


def linear_recurrence(
    drive: Pair,
    decay: Decay,
    *,
    initial_state: Pair | None = None,
    reset: Array | None = None,
    reverse: bool = False,
    truncated_steps: int | None = None,
    backend: RecurrenceBackend = "auto",
) -> tuple[Pair, Pair]:
    """States c_t = lambda_t c_{t-1} + drive_t of every step; the first one is drive_0 + lambda_0 c_{-1}.

    Args:
      drive: real and imaginary parts (b, t, k), each may be 0; float32, bfloat16, float16 or float64.
      decay: lambda, shape (k,) or (b, t, k) (selective).
      initial_state: c_{-1}, real and imaginary parts (b, k); zero when None.
      reset: (b, t) bool: lambda is zero at that step, so that a new sequence begins there.
      reverse: run from the last step to the first: c_t = lambda_t c_{t+1} + drive_t.
      truncated_steps: stop the gradient through the carried state at every multiple of this many steps,
        counted from where the recurrence starts; the value is the same.
      backend: "auto" picks by platform; "reference" is a scan over time; see each module for the cost.

    Returns:
      States (b, t, k) in the dtype of ``drive``, and the state after the last step (b, k), float32 (float64
      for a float64 drive). States are carried in that dtype throughout.

    Raises:
      ValueError: shapes or dtypes that do not fit, an unknown backend, or one that cannot do this case.

    Example:
      >>> drive = jnp.ones((1, 3, 1)), jnp.zeros((1, 3, 1))
      >>> (real, _), final = linear_recurrence(drive, Decay(jnp.log(jnp.array([0.5])), jnp.zeros(1)))
      >>> real[0, :, 0].tolist(), float(final[0][0, 0])
      ([1.0, 1.5, 1.75], 1.75)

    Source: specs/ten.md sections 1 and 9.
    """
    check_drive(drive)
    batch, length, width = drive[0].shape
    _check_decay(decay, drive[0].shape)
    check_state(initial_state, reset, batch=batch, length=length, width=width, steps=truncated_steps)
    chosen = backends.resolve(backend, backends.LINEAR_RECURRENCE, dtype=drive[0].dtype)
    if chosen == "fft" and (decay.selective or reset is not None):
        raise ValueError(
            "linear_recurrence: backend 'fft' takes one decay for all steps and no reset; use 'auto'"
        )
    dtype = accumulator(drive[0].dtype)
    initial = start_state(initial_state, (batch, width), dtype)
    decay = Decay(*cast(decay, dtype))
    if drive[0].size == 0:
        return drive, initial
    if length == 1:
        return _one_step(drive, decay, initial, reset)
    run = _RUNS[chosen] if chosen in _RUNS else _kernel(chosen)
    if truncated_steps is None:
        return run(drive, decay, initial, reset, reverse=reverse)
    return _truncated(run, drive, decay, initial, reset, reverse=reverse, steps=truncated_steps)


def _kernel(name: str) -> Run:
    """A Pallas backend, whose compilers take a second to import."""
    if name == "pallas_gpu":
        from sparsejax.ops.linear_recurrence import pallas_gpu

        return pallas_gpu.run
    from sparsejax.ops.linear_recurrence import pallas_tpu

    return pallas_tpu.run


def _truncated(
    run: Run, drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool, steps: int
) -> tuple[Pair, Pair]:
    def run_span(inputs: Any, start: Pair) -> tuple[Pair, Pair]:
        drive, own, reset = inputs
        return run(drive, own or decay, start, reset)

    # In the accumulator dtype, since the states at the cuts are what the next block starts from.
    inputs = cast(drive, initial[0].dtype), decay if decay.selective else None, reset
    if reverse:
        inputs = jax.tree.map(_flip, inputs)
    states, final = truncated(run_span, inputs, initial, steps=steps)
    if reverse:
        states = jax.tree.map(_flip, states)
    return cast(states, drive[0].dtype), final


def _one_step(drive: Pair, decay: Decay, initial: Pair, reset: Array | None) -> tuple[Pair, Pair]:
    dtype = initial[0].dtype
    real, imaginary = transition(decay, dtype)
    factor = (real[:, 0], imaginary[:, 0]) if decay.selective else (real, imaginary)
    carried = multiply(factor, initial)
    if reset is not None:
        carried = jnp.where(reset, 0, carried[0]), jnp.where(reset, 0, carried[1])
    final = add(carried, cast((drive[0][:, 0], drive[1][:, 0]), dtype))
    states = cast(final, drive[0].dtype)
    return (states[0][:, None], states[1][:, None]), final


def _flip(every: Array) -> Array:
    return jnp.flip(every, 1)


def start_state(initial_state: Pair | None, shape: tuple[int, int], dtype: DTypeLike) -> Pair:
    """The state before the first step, in the accumulator dtype; zeros when none is given."""
    if initial_state is None:
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)
    return cast(initial_state, dtype)


def check_drive(drive: Pair) -> None:
    """Raise a ValueError unless ``drive`` is a pair of floating (b, t, k) arrays."""
    real, imaginary = drive
    if real.ndim != 3 or real.shape != imaginary.shape or real.dtype != imaginary.dtype:
        raise ValueError(
            "drive must be a (real, imaginary) pair of one (batch, time, eigenstates) shape and dtype; got "
            f"{real.dtype}{real.shape} and {imaginary.dtype}{imaginary.shape}"
        )
    if not jnp.issubdtype(real.dtype, jnp.floating):
        raise ValueError(f"drive must be floating point, got {real.dtype}")


def check_state(
    initial_state: Pair | None,
    reset: Array | None,
    *,
    batch: int,
    length: int,
    width: int,
    steps: int | None,
) -> None:
    """Raise a ValueError unless the optional arguments fit a (batch, length, width) drive."""
    for part in initial_state or ():
        if part.shape != (batch, width):
            raise ValueError(f"initial_state must have shape {(batch, width)}, got {part.shape}")
    if reset is not None and (reset.shape != (batch, length) or reset.dtype != jnp.bool_):
        raise ValueError(f"reset must be bool{(batch, length)}, got {reset.dtype}{reset.shape}")
    if steps is not None and steps < 1:
        raise ValueError(f"truncated_steps must be at least 1, got {steps}")


def _check_decay(decay: Decay, shape: tuple[int, ...]) -> None:
    for name, part in zip(Decay._fields, decay, strict=True):
        if part.shape not in (shape, shape[2:]) or part.shape != decay.log_magnitude.shape:
            raise ValueError(f"decay.{name} must have shape {shape[2:]} or {shape}, got {part.shape}")
