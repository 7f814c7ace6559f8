"""AdamW as torch runs it under ``OneCycleLR``: a cycled beta1, and no step without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.training.optimizer import Decay, Group, clip_by_norm, decay_mask
from sparsejax.training.schedules import OneCycle


class CycledState(NamedTuple):
    """State of `cycled_adamw`.

    Attributes:
      step: () steps done, which the schedule is read at.
      seen: () int32 per parameter: steps in which it had a gradient, which the bias correction counts.
      mean: first moments.
      square: second moments.
    """

    step: jax.Array
    seen: Any
    mean: Any
    square: Any


def cycled_adamw(
    schedule: OneCycle,
    *,
    weight_decay: float = 0.01,
    decay: Decay = "all",
    groups: Sequence[Group] = (),
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    max_norm: float | None = None,
) -> optax.GradientTransformation:
    """AdamW whose rate and beta1 follow a cycle and which leaves parameters without a gradient alone.

    Torch skips a parameter whose gradient is None: it is not decayed, its moments stay, and its own step
    counter waits. Here a gradient that is 0 throughout counts as none. (Of the parameters of a network that
    learns, only those that the loss does not reach have such a gradient.)

    Args:
      schedule: step -> (rate, beta1), as `sparsejax.training.schedules.onecycle` makes it.
      weight_decay: of the decoupled kind.
      decay: see `sparsejax.training.optimizer.adamw`.
      groups: which of them decay; their rates are not used.
      beta2: decay of the second moments.
      epsilon: added to the root of the second moment.
      max_norm: longest gradient over all parameters; None for any.

    Returns:
      optax transformation; its ``update`` needs the parameters.

    Raises:
      ValueError: a number is negative, or beta2 not below 1.

    Example:
      >>> optimizer = cycled_adamw(lambda step: (jnp.asarray(0.1), jnp.asarray(0.9)), weight_decay=0.5)
      >>> params = {"read": jnp.ones(1), "unread": jnp.ones(1)}
      >>> gradients = {"read": jnp.ones(1), "unread": jnp.zeros(1)}
      >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
      >>> [round(float(updates[name][0]), 3) for name in ("read", "unread")]
      [-0.15, 0.0]

    Source: specs/sprout.md sections 3.1 and 4.
    """
    if weight_decay < 0 or epsilon < 0 or not 0 <= beta2 < 1:
        raise ValueError("weight_decay and epsilon must be at least 0, beta2 at least 0 and below 1")

    def init(params: Any) -> CycledState:
        zero = jnp.zeros((), jnp.int32)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return CycledState(
            zero, jax.tree.map(lambda _: zero, params), zeros, jax.tree.map(jnp.zeros_like, params)
        )

    def update(gradients: Any, state: CycledState, params: Any = None) -> tuple[Any, CycledState]:
        rate, beta1 = schedule(state.step)

        def one(gradient: Any, param: Any, decays: bool, moments: Any) -> tuple[Any, ...]:
            reached = jnp.any(gradient != 0)
            seen, mean, square = moments
            seen = seen + reached
            mean = jnp.where(reached, mean + (1 - beta1) * (gradient - mean), mean)
            square = jnp.where(reached, beta2 * square + (1 - beta2) * gradient**2, square)
            root = jnp.sqrt(square / _correction(beta2, seen)) + epsilon
            change = -rate * (
                mean / _correction(beta1, seen) / root + (weight_decay if decays else 0) * param
            )
            return jnp.where(reached, change, 0).astype(param.dtype), seen, mean, square

        leaves, structure = jax.tree.flatten(gradients)
        moments = zip(*(jax.tree.leaves(part) for part in state[1:]), strict=True)
        decays = jax.tree.leaves(decay_mask(params, decay, groups))
        rows = map(one, leaves, jax.tree.leaves(params), decays, moments)
        updates, *carried = (jax.tree.unflatten(structure, column) for column in zip(*rows, strict=True))
        return updates, CycledState(state.step + 1, *carried)

    adam = optax.GradientTransformation(init, update)
    return adam if max_norm is None else optax.chain(clip_by_norm(max_norm), adam)


def _correction(beta: jax.typing.ArrayLike, steps: jax.Array) -> jax.Array:
    """``1 - beta**steps``, not rounded away where beta is near 1; 1 before the first step."""
    return jnp.where(steps > 0, -jnp.expm1(steps * jnp.log(beta)), 1.0)
