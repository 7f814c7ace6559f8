"""A genetic algorithm of mutated clones: elites, survivors, their children, fresh nets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import Chain
from sparsejax.models.ultra_sparse.evolve.mutation import Rates, Rule, draw, mutate, whole_net_rule
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.population import Population, random_population, succeeded
from sparsejax.models.ultra_sparse.evolve.search import (
    Record,
    SearchResult,
    random_net,
    run_chains,
    saturation,
)
from sparsejax.typing import Params


@flax.struct.dataclass
class GeneticParams:
    """The numbers of a run; changing them compiles nothing anew.

    Attributes:
      rates: of the mutations.
    """

    rates: Any = Rates()


@dataclass(frozen=True)
class Genetic:
    """What fixes the program of a run (see `search.Search`).

    Attributes:
      config: the net.
      population_size: members.
      generations: rounds.
      elite_fraction: share of the best members, at least one, that stay and are the parents.
      survivor_fraction: share of the next best that stay without children.
      fresh_fraction: share of the population drawn anew; the rest are mutated clones of elites.
      rule: mutation rule.
    """

    config: UltraSparseConfig
    population_size: int = 100
    generations: int = 200
    elite_fraction: float = 0.2
    survivor_fraction: float = 0.0
    fresh_fraction: float = 0.0
    rule: Rule = Rule()

    def __post_init__(self):
        """Refuse a population that does not add up."""
        if self.generations < 1 or self.population_size < 2:
            raise ValueError("generations must be at least 1, population_size at least 2")
        shares = (self.elite_fraction, self.survivor_fraction, self.fresh_fraction)
        if min(shares) < 0 or self.num_children < 1:
            raise ValueError(
                f"elite, survivor and fresh fractions {shares} must be at least 0 and leave room for children"
            )

    @property
    def rounds(self) -> int:
        """Generations."""
        return self.generations

    @property
    def num_elites(self) -> int:
        """Members that stay and have children."""
        return max(1, int(self.elite_fraction * self.population_size))

    @property
    def num_kept(self) -> int:
        """Members that stay."""
        return self.num_elites + int(self.survivor_fraction * self.population_size)

    @property
    def num_fresh(self) -> int:
        """Members drawn anew."""
        return int(self.fresh_fraction * self.population_size)

    @property
    def num_children(self) -> int:
        """Mutated clones of elites."""
        return self.population_size - self.num_kept - self.num_fresh

    def init(self, key: jax.Array, goal: Objective, hyper: GeneticParams) -> Population:
        """A random population."""
        del hyper
        return random_population(key, self.config, goal, self.population_size)

    def advance(self, state: Population, goal: Objective, hyper: GeneticParams) -> tuple[Population, Record]:
        """One generation."""
        parent_key, draw_key, fresh_key = jax.random.split(jax.random.fold_in(state.key, state.generation), 3)
        order = jnp.argsort(state.losses)
        parents = order[jax.random.randint(parent_key, (self.num_children,), 0, self.num_elites)]
        draws = draw(draw_key, self.config, self.rule, hyper.rates, self.num_children)
        clones = jax.tree.map(lambda leaf: leaf[parents], dict(state.members))
        born = jax.vmap(lambda params, own: mutate(params, own, self.rule))(clones, draws)
        if self.num_fresh:
            keys = jax.random.split(fresh_key, self.num_fresh)
            fresh = jax.vmap(lambda key: random_net(key, self.config, goal.features.dtype))(keys)
            born = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), born, fresh)
        losses = jax.vmap(lambda params: evaluate(self.config, params, goal))(born)
        kept = order[: self.num_kept]
        members = jax.tree.map(lambda old, new: jnp.concatenate([old[kept], new]), dict(state.members), born)
        losses = jnp.concatenate([state.losses[kept], losses])
        improved = jnp.mean(losses[self.num_kept :][: self.num_children] < state.losses[parents])
        state = succeeded(state, Chain(members, losses, members, losses))
        record = Record(
            loss=state.best_loss,
            current=jnp.mean(losses),
            temperature=jnp.zeros_like(state.best_loss),
            accepted=improved,
            saturation=saturation(self.config, state.best_params, goal),
        )
        return state, record

    def best(self, state: Population) -> tuple[Params, jax.Array]:
        """The best net of any generation."""
        return state.best_params, state.best_loss


def genetic(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    population_size: int = 100,
    generations: int = 200,
    elite_fraction: float = 0.2,
    survivor_fraction: float = 0.0,
    fresh_fraction: float = 0.0,
    rule: str | Rule = "core",
    rates: Rates | None = None,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """A genetic algorithm without crossover: the best stay, mutated clones of them replace the others.

    The original's tiered variant is ``elite_fraction=0.2, survivor_fraction=0.3, fresh_fraction=0.1``.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      goal: training batch and loss.
      population_size: members.
      generations: rounds.
      elite_fraction: share that stays and has children.
      survivor_fraction: share that stays without children.
      fresh_fraction: share drawn anew in every generation.
      rule: see `anneal`; "one_neuron" is not offered here.
      rates: of the mutations; None takes those of the named rule.
      chains: independent runs, as leading axis of the result; None makes one run without it.
      mesh: devices to spread the runs over.

    Returns:
      `SearchResult`; its record's ``accepted`` is the share of children better than their parents.

    Raises:
      ValueError: the batch does not fit the net, an unknown rule, or impossible settings.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve import objective
      >>> x = jnp.linspace(-1, 1, 50)
      >>> goal = objective(jnp.stack([x, x * x], axis=-1), jnp.tanh(x))
      >>> config = UltraSparseConfig.fixed_k(2, hidden_size=4, inputs_per_neuron=1)
      >>> bool(genetic(jax.random.key(0), config, goal, population_size=20).loss < 0.1)
      True

    Source: specs/ultra_sparse.md section 6 (core.train_ga and the legacy tiers, without trust and proteins).
    """
    chosen, default_rates = whole_net_rule(rule)
    search = Genetic(
        config, population_size, generations, elite_fraction, survivor_fraction, fresh_fraction, chosen
    )
    return run_chains(key, search, goal, GeneticParams(rates or default_rates), chains=chains, mesh=mesh)
