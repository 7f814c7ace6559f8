"""One gradient for every backend: the adjoint of a recurrence is the same recurrence run the other way.

With cotangents dc_t of the states, g_t = dc_t + conj(lambda_{t+1}) g_{t+1} runs over reversed time.
Then d drive_t = g_t, d initial = conj(lambda_0) g_0, and with the carried part p_t = lambda_t c_{t-1} the
log-magnitude gets Re(conj(g_t) p_t) and the frequency -Im(conj(g_t) p_t). Only the states are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.decay import (
    Decay,
    Pair,
    cast,
    conjugate,
    kept_transition,
    multiply,
    transition,
)

Kept = tuple[Pair, Decay, Pair, Array | None]
"""States, decay, initial state and resets."""

Gradients = tuple[Pair, Decay, Pair, None]
"""Of drive, decay, initial state and resets."""


@runtime_checkable
class Run(Protocol):
    """A backend."""

    def __call__(
        self, drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
    ) -> tuple[Pair, Pair]:
        """States of every step and the state after the last one.

        Args:
          drive: (b, t, k), t >= 1.
          decay: (k,) or (b, t, k), in the accumulator dtype.
          initial: (b, k), in the accumulator dtype.
          reset: (b, t) bool, or None.
          reverse: run from the last step to the first.

        Returns:
          States (b, t, k) in the dtype of ``drive``; final state (b, k) in the accumulator dtype.
        """


def with_adjoint(run: Run) -> Run:
    """``run`` with a gradient that calls ``run`` once more, in the other direction.

    Cost: one more run, and one pass over states and cotangents for the decay's gradient. Memory: the states.
    """

    @partial(jax.custom_vjp, nondiff_argnums=(4,))
    def recurrence(
        drive: Pair, decay: Decay, initial: Pair, reset: Array | None, reverse: bool
    ) -> tuple[Pair, Pair]:
        return run(drive, decay, initial, reset, reverse=reverse)

    def forward(
        drive: Pair, decay: Decay, initial: Pair, reset: Array | None, reverse: bool
    ) -> tuple[tuple[Pair, Pair], Kept]:
        states, final = recurrence(drive, decay, initial, reset, reverse)
        return (states, final), (states, decay, initial, reset)

    def backward(reverse: bool, kept: Kept, cotangents: tuple[Pair, Pair]) -> Gradients:
        return _pull_back(recurrence, kept, cotangents, reverse=reverse)

    recurrence.defvjp(forward, backward)

    def call(
        drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
    ) -> tuple[Pair, Pair]:
        states_and_final: tuple[Pair, Pair] = recurrence(drive, decay, initial, reset, reverse)
        return states_and_final

    return call


def _pull_back(
    recurrence: Callable[[Pair, Decay, Pair, Array | None, bool], tuple[Pair, Pair]],
    kept: Kept,
    cotangents: tuple[Pair, Pair],
    *,
    reverse: bool,
) -> Gradients:
    states, decay, initial, reset = kept
    dtype = accumulator(states[0].dtype)
    first, last = (-1, 0) if reverse else (0, -1)
    of_states, of_final = cast(cotangents[0], dtype), cotangents[1]
    source = of_states[0].at[:, last].add(of_final[0]), of_states[1].at[:, last].add(of_final[1])
    # Step t of the adjoint is carried by the factor of the step after it; at the far end nothing is carried.
    of_next = Decay(*(_next(part, reverse=reverse) for part in decay)) if decay.selective else decay
    reset_next = None if reset is None else _next(reset, reverse=reverse)
    nothing = jnp.zeros_like(initial[0]), jnp.zeros_like(initial[1])
    gradient, _ = recurrence(source, conjugate(of_next), nothing, reset_next, not reverse)

    before = _before(states, initial, reverse=reverse)
    d_decay = _decay_gradient(gradient, before, decay, reset)
    at_first = Decay(*(part[:, first] for part in decay)) if decay.selective else decay
    d_initial = multiply(
        transition(conjugate(at_first), dtype), (gradient[0][:, first], gradient[1][:, first])
    )
    if reset is not None:
        restarted = reset[:, first, None]
        d_initial = jnp.where(restarted, 0, d_initial[0]), jnp.where(restarted, 0, d_initial[1])
    return cast(gradient, states[0].dtype), d_decay, d_initial, None


def _next(part: Array, *, reverse: bool) -> Array:
    """``part`` of the step that follows each step; the last one, which nothing follows, is zeros."""
    empty = jnp.zeros_like(part[:, :1])
    if reverse:
        return jnp.concatenate((empty, part[:, :-1]), axis=1)
    return jnp.concatenate((part[:, 1:], empty), axis=1)


def _before(states: Pair, initial: Pair, *, reverse: bool) -> Pair:
    """The state that enters each step."""

    def shifted(every: Array, start: Array) -> Array:
        every = every.astype(start.dtype)
        if reverse:
            return jnp.concatenate((every[:, 1:], start[:, None]), axis=1)
        return jnp.concatenate((start[:, None], every[:, :-1]), axis=1)

    return shifted(states[0], initial[0]), shifted(states[1], initial[1])


def _decay_gradient(gradient: Pair, before: Pair, decay: Decay, reset: Array | None) -> Decay:
    factor = kept_transition(decay, reset, before[0].dtype)
    carried = multiply(factor, before)
    log_magnitude = gradient[0] * carried[0] + gradient[1] * carried[1]
    frequency = gradient[1] * carried[0] - gradient[0] * carried[1]
    if decay.selective:
        return Decay(log_magnitude, frequency)
    return Decay(log_magnitude.sum((0, 1)), frequency.sum((0, 1)))
