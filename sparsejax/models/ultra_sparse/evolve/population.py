"""A population of nets between two generations, as genetic searches keep it."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import Chain, choose
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.search import random_net
from sparsejax.typing import Params


@flax.struct.dataclass
class Population:
    """p nets and the best one ever seen.

    Attributes:
      key: of the whole run.
      generation: () generations done.
      members: parameters with a leading axis p.
      losses: (p,) of them.
      best_params: the best net seen.
      best_loss: () of it.
    """

    key: jax.Array
    generation: jax.Array
    members: Params
    losses: jax.Array
    best_params: Params
    best_loss: jax.Array


def take(members: Params, which: jax.Array) -> Params:
    """The chosen members."""
    return jax.tree.map(lambda leaf: leaf[which], members)


def random_population(key: jax.Array, config: UltraSparseConfig, goal: Objective, size: int) -> Population:
    """A population of random nets."""
    # Generations fold their numbers into the key; this number is none of theirs.
    keys = jax.random.split(jax.random.fold_in(key, jnp.iinfo(jnp.int32).max), size)
    members = jax.vmap(lambda k: random_net(k, config, goal.features.dtype))(keys)
    losses = jax.vmap(lambda member: evaluate(config, member, goal))(members)
    best = jnp.argmin(losses)
    return Population(key, jnp.asarray(0), members, losses, take(members, best), losses[best])


def succeeded(state: Population, chains: Chain) -> Population:
    """The next generation, made of the best net of every chain."""
    best = jnp.argmin(chains.best_loss)
    champion = (take(chains.best_params, best), chains.best_loss[best])
    better = champion[1] < state.best_loss
    return Population(
        state.key,
        state.generation + 1,
        chains.best_params,
        chains.best_loss,
        *choose(better, champion, (state.best_params, state.best_loss)),
    )
