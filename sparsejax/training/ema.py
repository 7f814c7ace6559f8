"""Exponential moving averages of parameters, carried by the optimiser's state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """What `averaged` carries.

    Attributes:
      steps: () taken.
      average: like the parameters.
    """

    steps: jax.Array
    average: Any


def averaged(decay: float) -> optax.GradientTransformation:
    """Follow the parameters by a moving average; the last part of an optax chain.

    Updates go through as they are. The average begins as the first parameters and forgets them quickly: step
    n, counted from 1, keeps ``min(decay, n / (n + 9))`` of it. Being part of the optimiser's state it is
    saved, resumed and spread over devices with the rest.

    Args:
      decay: share of the average that a late step keeps.

    Returns:
      optax transformation; its ``update`` needs the parameters.

    Raises:
      ValueError: the decay is negative, or not below 1.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), averaged(0.99))
      >>> params = {"w": jnp.zeros(())}
      >>> updates, state = optimizer.update({"w": jnp.ones(())}, optimizer.init(params), params)
      >>> float(updates["w"]), round(float(average_of(state)["w"]), 3)
      (-1.0, -0.9)
    """
    if not 0 <= decay < 1:
        raise ValueError(f"the decay of an average must be at least 0 and below 1, not {decay}")

    def begin(params: Any) -> AverageState:
        # A copy: a step that is given its state to reuse must not be given one array twice.
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        steps = state.steps + 1
        kept = jnp.minimum(decay, steps / (steps + 9))

        def follow(average: jax.Array, new: jax.Array) -> jax.Array:
            return new + kept.astype(new.dtype) * (average - new)

        new = optax.apply_updates(params, updates)
        return updates, AverageState(steps, jax.tree.map(follow, state.average, new))

    return optax.GradientTransformation(begin, update)


def average_of(optimizer: Any) -> Any:
    """The averaged parameters in the state of a chain that `averaged` is part of.

    Raises:
      ValueError: it is not.
    """
    parts = jax.tree.leaves(optimizer, is_leaf=lambda part: isinstance(part, AverageState))
    for part in parts:
        if isinstance(part, AverageState):
            return part.average
    raise ValueError("this optimiser follows no average: put ema.averaged at the end of its chain")
