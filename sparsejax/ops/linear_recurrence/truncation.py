"""Backpropagation cut every few steps, for any recurrence and without changing the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Run = Callable[[Any, Any], tuple[Any, Any]]
"""(inputs of every step: any tree of (b, t, ...), initial state) -> (states of every step, final state)."""


def truncated(run: Run, inputs: Any, initial: Any, *, steps: int) -> tuple[Any, Any]:
    """``run`` with no gradient through the state that enters step ``steps``, ``2 * steps``, and so on.

    The states are first computed without gradient; the gradient then comes from all blocks of ``steps`` steps
    at once, each started from its own stopped state. So the value costs twice, but the backward pass is only
    ``steps`` deep. The gradient of ``initial`` itself is kept.

    Args:
      run: the recurrence; its states must hold the carried state exactly.
      inputs: what each step reads, leaves (b, t, ...).
      initial: leaves (b, ...).
      steps: length of a block, at least 1.

    Returns:
      States, leaves (b, t, ...), and the final state, leaves (b, ...).

    Example:
      >>> def run(x, start):
      ...     sums = start[:, None] + jnp.cumsum(x, axis=1)
      ...     return sums, sums[:, -1]
      >>> def last(x):
      ...     return truncated(run, x, jnp.zeros(1), steps=2)[0].sum()
      >>> jax.grad(last)(jnp.ones((1, 5))).tolist()  # without the cut: 5, 4, 3, 2, 1
      [[2.0, 1.0, 2.0, 1.0, 1.0]]
    """
    batch, length = jax.tree.leaves(inputs)[0].shape[:2]
    if length <= steps:
        return run(inputs, initial)
    whole = length // steps
    head = _span(inputs, 0, whole * steps)
    blocks = jax.tree.map(lambda x: x.reshape(batch * whole, steps, *x.shape[2:]), head)
    states, ends = run(blocks, _starts(run, head, initial, steps=steps))
    states = jax.tree.map(lambda x: x.reshape(batch, whole * steps, *x.shape[2:]), states)
    final = jax.tree.map(lambda x: x.reshape(batch, whole, *x.shape[1:])[:, -1], ends)
    if whole * steps == length:
        return states, final
    rest, final = run(_span(inputs, whole * steps, length), jax.lax.stop_gradient(final))
    return jax.tree.map(lambda a, b: jnp.concatenate((a, b), axis=1), states, rest), final


def _span(tree: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda x: x[:, start:stop], tree)


def _starts(run: Run, inputs: Any, initial: Any, *, steps: int) -> Any:
    """The state that enters each block, leaves (b * blocks, ...); only the first one carries a gradient."""
    states, _ = jax.lax.stop_gradient(run(*jax.lax.stop_gradient((inputs, initial))))

    def entering(first: jax.Array, every: jax.Array) -> jax.Array:
        later = every[:, steps - 1 : -1 : steps]
        starts = jnp.concatenate((first[:, None], later.astype(first.dtype)), axis=1)
        return starts.reshape(-1, *first.shape[1:])

    return jax.tree.map(entering, initial, states)
