"""One optimiser step over micro-batches, as a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from sparsejax.training.cross_entropy import TokenLoss

LossFunction = Callable[[Any, Any, jax.Array], TokenLoss]
"""Loss of a batch: (params, batch, key) -> `TokenLoss`; pure."""

Step = Callable[["GradientState", Any], tuple["GradientState", dict[str, jax.Array]]]
"""(state, batch) -> (state, record)."""


@flax.struct.dataclass
class GradientState:
    """Everything that training by gradients carries from step to step.

    Attributes:
      step: () optimiser steps done.
      params: nested dict of arrays.
      optimizer: state of the optax chain.
      key: PRNG key of the run; step n draws from the key folded with n.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    key: jax.Array


def start_state(key: jax.Array, params: Any, optimizer: optax.GradientTransformation) -> GradientState:
    """The state before the first step.

    Args:
      key: PRNG key of the run.
      params: nested dict of arrays.
      optimizer: whose state is made.

    Example:
      >>> state = start_state(jax.random.key(0), {"w": jnp.ones(2)}, optax.sgd(0.1))
      >>> int(state.step)
      0
    """
    return GradientState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)


def initial_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, key: jax.Array
) -> GradientState:
    """The state before the first step, of a run's seed alone; pure.

    Args:
      init: parameters to begin with, from a key.
      optimizer: whose state is made.
      key: of parameters and run, which is split.

    Example:
      >>> state = initial_state(lambda key: {"w": jax.random.normal(key)}, optax.sgd(0.1), jax.random.key(0))
      >>> int(state.step)
      0
    """
    of_params, of_run = jax.random.split(key)
    return start_state(of_run, init(of_params), optimizer)


def gradient_step(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    penalty: Callable[[Any], jax.Array] | None = None,
) -> Step:
    """An optimiser step on the mean over tokens of a batch, taken in ``accumulate`` parts.

    Sums of losses and of gradients are added up and divided once, so that parts with few counted tokens weigh
    no more than others: the step is that of the whole batch. A saved state is never in the middle of one,
    which it could be with `optax.MultiSteps`.

    Args:
      loss: of a part of the batch.
      optimizer: optax transformation.
      accumulate: parts, one after another; divides the leading axis of the batch.
      penalty: a regularisation of the parameters, added to the loss once per step.

    Returns:
      pure function (state, batch) -> (state, record). The record's scalars: ``loss`` per token without the
      penalty, the loss's ``metrics`` per token, ``penalty`` if there is one, ``tokens`` counted,
      ``gradient_norm`` before clipping.

    Example:
      >>> def squares(params, batch, key):
      ...     return TokenLoss(jnp.sum((params["w"] - batch) ** 2), jnp.asarray(batch.size, float))
      >>> optimizer = optax.sgd(0.25)
      >>> state = start_state(jax.random.key(0), {"w": jnp.zeros(())}, optimizer)
      >>> state, record = gradient_step(squares, optimizer, accumulate=2)(state, jnp.asarray([1.0, 3.0]))
      >>> float(state.params["w"]), float(record["loss"])
      (1.0, 5.0)
    """

    def total(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        found = loss(params, batch, key)
        return found.total, (found.weight, dict(found.metrics or {}))

    def step(state: GradientState, batch: Any) -> tuple[GradientState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        sums = _summed(jax.value_and_grad(total, has_aux=True), state.params, batch, key, parts=accumulate)
        (losses, (count, metrics)), gradients = sums
        per_token = 1 / jnp.maximum(count, 1)
        gradients = jax.tree.map(lambda leaf: leaf * per_token.astype(leaf.dtype), gradients)
        record = {"loss": losses * per_token, "tokens": count}
        record |= {name: value * per_token for name, value in metrics.items()}
        if penalty is not None:
            record["penalty"], of_penalty = jax.value_and_grad(penalty)(state.params)
            gradients = jax.tree.map(jnp.add, gradients, of_penalty)
        record["gradient_norm"] = optax.tree.norm(gradients)
        updates, carried = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return GradientState(state.step + 1, params, carried, state.key), record

    return step


def compiled_steps(
    step: Step, batches: Iterator[Any], placement: Any = None
) -> Callable[[GradientState, int], tuple[Any, Any]]:
    """Steps for `sparsejax.training.loop.run_rounds`: one compiled program, called once per batch.

    The host does not wait between the steps of a call, so that the next batch is made while the device
    computes.

    Args:
      step: from `gradient_step`.
      batches: gives the batch of each step, from the first one on that is to be done.
      placement: tree of the state's shardings, which every step keeps; None leaves them to the compiler.

    Returns:
      ``(state, count) -> (state, records)``; the state given is donated. Records have the axis (count).
    """
    compiled = jax.jit(step, donate_argnums=0, out_shardings=placement and (placement, None))
    return called_steps(compiled, ((batch,) for batch in batches))


def called_steps(
    compiled: Callable[..., tuple[GradientState, dict[str, jax.Array]]],
    arguments: Iterator[tuple[Any, ...]],
) -> Callable[[GradientState, int], tuple[Any, Any]]:
    """`compiled_steps` of a step that is compiled already and takes more than a batch.

    Args:
      compiled: (state, *arguments) -> (state, record).
      arguments: of each step, from the first one on that is to be done.
    """

    def steps(state: Any, count: int) -> tuple[Any, Any]:
        records = []
        for _ in range(count):
            state, record = compiled(state, *next(arguments))
            records.append(record)
        return state, jax.tree.map(lambda *rows: jnp.stack(rows), *records)

    return steps


def _summed(value_and_grad: Any, params: Any, batch: Any, key: jax.Array, *, parts: int) -> Any:
    """Values and gradients summed over the parts of a batch."""
    if parts == 1:
        return value_and_grad(params, batch, key)
    cut = jax.tree.map(lambda leaf: _interleaved(leaf, parts), batch)
    keys = jax.random.split(key, parts)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(params, *part)), None

    like = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda leaf: leaf[0], cut), keys[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return jax.lax.scan(add, zeros, (cut, keys))[0]


def _interleaved(leaf: jax.Array, parts: int) -> jax.Array:
    """(parts, rows, ...): every part has rows of every device that the batch is spread over."""
    if leaf.shape[0] % parts:
        raise ValueError(f"a batch of {leaf.shape[0]} rows does not divide into {parts} parts")
    return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)
