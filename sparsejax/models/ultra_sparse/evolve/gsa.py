"""Genetic simulated annealing: a population whose members are replaced by the best of short chains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.anneal import check_temperatures, log_uniform
from sparsejax.models.ultra_sparse.evolve.chain import Steps, start_chain, walk
from sparsejax.models.ultra_sparse.evolve.mutation import Rates, Rule, draw, whole_net_rule
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.population import Population, random_population, succeeded, take
from sparsejax.models.ultra_sparse.evolve.search import (
    Record,
    SearchResult,
    run_chains,
    saturation,
)
from sparsejax.typing import Params

_ROULETTE_FLOOR = 1e-8


@flax.struct.dataclass
class GsaParams:
    """The numbers of a run; changing them compiles nothing anew.

    Attributes:
      initial_temperature: of the first generation, in units of the loss.
      final_temperature: that the schedule tends to.
      rates: of the mutations.
    """

    initial_temperature: Any = 0.1
    final_temperature: Any = 1e-4
    rates: Rates = Rates(0.15, 0.15, 0.1)


@dataclass(frozen=True)
class Gsa:
    """What fixes the program of a run (see `search.Search`).

    Attributes:
      config: the net.
      population_size: members p.
      generations: rounds.
      steps: proposals of each member's chain in a generation, at constant temperature.
      seed_fraction: share of the best members that go on for certain, at least one; roulette picks the
        others.
      rule: mutation rule.
    """

    config: UltraSparseConfig
    population_size: int = 50
    generations: int = 100
    steps: int = 20
    seed_fraction: float = 0.05
    rule: Rule = Rule()

    def __post_init__(self):
        """Refuse an empty run."""
        if min(self.population_size, self.generations, self.steps) < 1:
            raise ValueError("population_size, generations and steps must be at least 1")
        if not 0 <= self.seed_fraction <= 1:
            raise ValueError(f"seed_fraction must be within 0 and 1, not {self.seed_fraction}")

    @property
    def rounds(self) -> int:
        """Generations."""
        return self.generations

    @property
    def num_seeds(self) -> int:
        """Members that go on for certain."""
        return max(1, int(self.seed_fraction * self.population_size))

    def init(self, key: jax.Array, goal: Objective, hyper: GsaParams) -> Population:
        """A random population."""
        del hyper
        return random_population(key, self.config, goal, self.population_size)

    def advance(self, state: Population, goal: Objective, hyper: GsaParams) -> tuple[Population, Record]:
        """One generation."""
        pick_key, draw_key, chance_key = jax.random.split(jax.random.fold_in(state.key, state.generation), 3)
        cooling = (hyper.final_temperature / hyper.initial_temperature) ** (
            state.generation / self.generations
        )
        temperature = hyper.initial_temperature * cooling
        picks = roulette(jax.random.uniform(pick_key, (self.population_size - self.num_seeds,)), state.losses)
        shape = (self.population_size, self.steps)
        draws = draw(draw_key, self.config, self.rule, hyper.rates, self.population_size * self.steps)
        steps = Steps(
            jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), draws),
            log_uniform(chance_key, shape),
            jnp.full(shape, temperature),
            jnp.ones(shape, bool),
        )
        state, accepted = self.generation(state, picks, steps, goal)
        record = Record(
            loss=state.best_loss,
            current=jnp.mean(state.losses),
            temperature=temperature,
            accepted=jnp.mean(accepted),
            saturation=saturation(self.config, state.best_params, goal),
        )
        return state, record

    def generation(
        self, state: Population, picks: jax.Array, steps: Steps, goal: Objective
    ) -> tuple[Population, jax.Array]:
        """One generation from given picks and draws, such as recorded ones.

        Args:
          state: the population before it.
          picks: members that roulette chose, counted from the best one; `num_seeds` best ones come first.
          steps: of every member's chain; leading axes (p, steps).
          goal: batch and loss.

        Returns:
          the population after it; (p, steps) which proposals were accepted.
        """
        parents = jnp.argsort(state.losses)[jnp.concatenate([jnp.arange(self.num_seeds), picks])]
        chains = jax.vmap(start_chain)(take(state.members, parents), state.losses[parents])
        step = partial(walk, rule=self.rule, evaluate=partial(evaluate, self.config, goal=goal))
        chains, accepted = jax.vmap(step)(chains, steps)
        return succeeded(state, chains), accepted

    def best(self, state: Population) -> tuple[Params, jax.Array]:
        """The best net of any generation."""
        return state.best_params, state.best_loss


def roulette(uniform: jax.Array, losses: jax.Array) -> jax.Array:
    """Members picked in proportion to how much better they are than the worst.

    Args:
      uniform: (n,) numbers in [0, 1).
      losses: (p,).

    Returns:
      (n,) members, counted from the best one: 0 is the best. The worst is almost never picked.
    """
    fitness = -jnp.sort(losses)
    share = fitness - fitness[-1] + _ROULETTE_FLOOR
    edges = jnp.cumsum(share)
    picks = jnp.searchsorted(edges / edges[-1], uniform, side="right")
    return jnp.minimum(picks, len(losses) - 1)


def gsa(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    population_size: int = 50,
    generations: int = 100,
    steps: int = 20,
    seed_fraction: float = 0.05,
    initial_temperature: float = 0.1,
    final_temperature: float = 1e-4,
    rule: str | Rule = "core",
    rates: Rates | None = None,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """Genetic simulated annealing: selection between short annealed chains.

    Every generation takes the best members and, by roulette, others as parents; each parent starts a chain
    of ``steps`` proposals at the generation's temperature, and the best net of the chain, its start
    included, takes the member's place.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      goal: training batch and loss.
      population_size: members.
      generations: rounds; generation g runs at T0 (T1 / T0)**(g / generations).
      steps: proposals per member and generation.
      seed_fraction: share of the best that are parents for certain, at least one.
      initial_temperature: T0, in units of the loss.
      final_temperature: T1.
      rule: see `anneal`; "one_neuron" is not offered here.
      rates: of the mutations; None takes 0.15, 0.15 and 0.1 of the original.
      chains: independent runs, as leading axis of the result; None makes one run without it.
      mesh: devices to spread the runs over.

    Returns:
      `SearchResult`.

    Raises:
      ValueError: the batch does not fit the net, an unknown rule, or impossible settings.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve import objective
      >>> x = jnp.linspace(-1, 1, 50)
      >>> goal = objective(jnp.stack([x, x * x], axis=-1), jnp.tanh(x))
      >>> config = UltraSparseConfig.fixed_k(2, hidden_size=4, inputs_per_neuron=1)
      >>> bool(gsa(jax.random.key(0), config, goal, population_size=8, generations=20).loss < 0.1)
      True

    Source: specs/ultra_sparse.md section 6 (core.train_gsa).
    """
    search = Gsa(config, population_size, generations, steps, seed_fraction, whole_net_rule(rule)[0])
    check_temperatures(initial_temperature, final_temperature)
    hyper = GsaParams(initial_temperature, final_temperature, rates or GsaParams().rates)
    return run_chains(key, search, goal, hyper, chains=chains, mesh=mesh)
