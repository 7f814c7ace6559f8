"""AdamW with clipping and parameter groups, step for step what torch computes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.training.tree_paths import map_paths

Decay = Literal["weights", "all"]
"""What weight decay acts on: the parameters that no group exempts, or every one."""


class Group(NamedTuple):
    """Parameters that are trained otherwise than the rest.

    Attributes:
      pattern: regular expression, searched for in the path of a parameter such as ``layer_0/norm1/scale``.
      decays: whether weight decay acts on them.
      rate: factor of the learning rate.
    """

    pattern: str
    decays: bool = False
    rate: float = 1.0


NORMS_AND_BIASES = Group(r"(^|/)(scale|bias)$")
"""What is rarely decayed, by the names flax gives it."""

_NORM_EPSILON = 1e-6


def adamw(
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.1,
    decay: Decay = "weights",
    groups: Sequence[Group] = (NORMS_AND_BIASES,),
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    max_norm: float | None = None,
) -> optax.GradientTransformation:
    """The optimiser as one optax chain: clip, Adam, decay, rate of the group, rate of the step.

    Args:
      schedule: learning rate by step, counted from 0.
      weight_decay: of the decoupled kind: a parameter loses rate * weight_decay of itself per step.
      decay: "all" decays every parameter, as many published trainers did.
      groups: of a parameter that several match, the first one rules.
      betas: decay of the first and second moments.
      epsilon: added to the root of the second moment.
      max_norm: longest gradient over all parameters, see `clip_by_norm`; None for any.

    Returns:
      optax transformation; its ``update`` needs the parameters.

    Raises:
      ValueError: a number is negative, or a beta not below 1.

    Example:
      >>> optimizer = adamw(optax.constant_schedule(0.1), weight_decay=0.5)
      >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
      >>> updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
      >>> [round(float(updates[name][0]) + 0, 3) for name in ("kernel", "bias")]
      [-0.05, 0.0]
    """
    if weight_decay < 0 or epsilon < 0 or (max_norm is not None and max_norm <= 0):
        raise ValueError("weight_decay and epsilon must be at least 0, max_norm above 0")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be at least 0 and below 1, not {betas}")

    parts = [
        optax.scale_by_adam(*betas, eps=epsilon),
        optax.add_decayed_weights(weight_decay, mask=partial(decay_mask, decay=decay, groups=groups)),
        optax.scale_by_learning_rate(schedule),
    ]
    if any(group.rate != 1 for group in groups):
        parts.append(_scale_by_group(groups))
    return optax.chain(*([clip_by_norm(max_norm)] if max_norm is not None else []), *parts)


def decay_mask(params: Any, decay: Decay, groups: Sequence[Group]) -> Any:
    """A tree like the parameters: True where weight decay acts.

    Example:
      >>> decay_mask({"kernel": 0, "bias": 0}, "weights", [NORMS_AND_BIASES])
      {'bias': False, 'kernel': True}
    """
    return map_paths(lambda path, _: decay == "all" or _group(path, groups).decays, params)


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Torch's ``clip_grad_norm_``: gradients times min(1, max_norm / (norm + 1e-6)), the norm over all.

    Args:
      max_norm: longest gradient.

    Example:
      >>> clipped, _ = clip_by_norm(1.0).update({"w": jnp.asarray([3.0, 4.0])}, optax.EmptyState())
      >>> [round(float(value), 3) for value in clipped["w"]]
      [0.6, 0.8]
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + _NORM_EPSILON))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_group(groups: Sequence[Group]) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return map_paths(lambda path, leaf: leaf * _group(path, groups).rate, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _group(path: str, groups: Sequence[Group]) -> Group:
    rest = Group("", decays=True)
    return next((group for group in groups if re.search(group.pattern, path)), rest)
