"""One Metropolis chain: a current net, the best one seen, and the rule by which a proposal replaces them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.evolve.mutation import Rule, mutate
from sparsejax.typing import Params


@flax.struct.dataclass
class Chain:
    """Where a chain is.

    Attributes:
      params: the current net.
      loss: () of it.
      best_params: the best net seen, the start included.
      best_loss: () of it.
    """

    params: Params
    loss: jax.Array
    best_params: Params
    best_loss: jax.Array


@flax.struct.dataclass
class Steps:
    """What a stretch of steps needs besides the net; every array has the steps as its leading axis.

    Attributes:
      draws: the proposals: `mutation.Draws`, or `one_neuron.NeuronDraws` for the walk over there.
      log_chance: (n,) logarithm of the uniform number that decides.
      temperature: (n,) in units of the loss; 0 accepts only what is strictly better.
      active: (n,) False leaves the chain as it is.
    """

    draws: Any
    log_chance: jax.Array
    temperature: jax.Array
    active: jax.Array


def start_chain(params: Params, loss: jax.Array) -> Chain:
    """A chain that has seen one net."""
    return Chain(params, loss, params, loss)


def accepts(rise: jax.Array, temperature: jax.Array, log_chance: jax.Array) -> jax.Array:
    """Whether a loss that rises by so much is accepted: ``log u < -rise / T``.

    A fall always is; at temperature 0 nothing else is. A loss that is NaN is never accepted.

    Args:
      rise: loss of the proposal less that of the current net.
      temperature: in units of the loss, at least 0.
      log_chance: logarithm of a uniform number.
    """
    at_zero = rise < 0
    return jnp.where(
        temperature > 0, log_chance < -rise / jnp.where(temperature > 0, temperature, 1), at_zero
    )


def walk(
    chain: Chain, steps: Steps, rule: Rule, evaluate: Callable[[Params], jax.Array]
) -> tuple[Chain, jax.Array]:
    """Take the steps one after the other in a compiled loop.

    Args:
      chain: where to begin.
      steps: what to propose, and how to decide.
      rule: the mutation rule of the draws.
      evaluate: loss of a net.

    Returns:
      the chain after the steps; (n,) which of them were accepted.
    """

    def step(chain: Chain, own: Steps) -> tuple[Chain, jax.Array]:
        proposal = mutate(chain.params, own.draws, rule)
        loss = evaluate(proposal)
        accepted = own.active & accepts(loss - chain.loss, own.temperature, own.log_chance)
        better = own.active & (loss < chain.best_loss)
        moved = Chain(
            *choose(accepted, (proposal, loss), (chain.params, chain.loss)),
            *choose(better, (proposal, loss), (chain.best_params, chain.best_loss)),
        )
        return moved, accepted

    return jax.lax.scan(step, chain, steps)


def choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """``yes`` or ``no``, leaf by leaf; the condition is () or has leading axes of the leaves."""
    return jax.tree.map(
        lambda a, b: jnp.where(
            jnp.reshape(condition, condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        ),
        yes,
        no,
    )
