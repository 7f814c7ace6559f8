"""The recurrence as `jax.lax.scan` over time: the meaning of every other backend, and the fastest on CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, cast, multiply, transition


def run(
    drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
) -> tuple[Pair, Pair]:
    """States of every step and the last one, one step after another; see `adjoint.Run` for the arguments.

    Cost: 8 flops per state; reads drive once and writes states once (16 bytes per state in float32, plus 8
    for a selective decay). T dependent steps, each of b*k elements; sines and cosines are outside the loop.
    """
    dtype = accumulator(drive[0].dtype)
    factor = transition(decay, dtype)
    keep = None if reset is None else _time_major(~reset)[..., None]
    per_step = (_time_major(factor[0]), _time_major(factor[1])) if decay.selective else None

    def step(carry: Pair, at: tuple[Pair, Pair | None, Array | None]) -> tuple[Pair, Pair]:
        here, own_factor, kept = at
        carried = multiply(own_factor or factor, carry)
        if kept is not None:
            carried = jnp.where(kept, carried[0], 0), jnp.where(kept, carried[1], 0)
        state = add(carried, cast(here, dtype))
        return state, cast(state, here[0].dtype)

    steps = ((_time_major(drive[0]), _time_major(drive[1])), per_step, keep)
    final, states = jax.lax.scan(step, initial, steps, reverse=reverse)
    return (_time_major(states[0]), _time_major(states[1])), final


def _time_major(array: Array) -> Array:
    return jnp.swapaxes(array, 0, 1)
