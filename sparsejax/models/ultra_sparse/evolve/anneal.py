"""Simulated annealing: a chain that cools from temperatures at which it wanders to ones where it climbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve import one_neuron
from sparsejax.models.ultra_sparse.evolve.chain import Chain, Steps, choose, start_chain, walk
from sparsejax.models.ultra_sparse.evolve.mutation import Rates, Rule, draw, named_rule
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.search import (
    Record,
    SearchResult,
    random_net,
    run_chains,
    saturation,
)
from sparsejax.typing import Params


@flax.struct.dataclass
class AnnealParams:
    """The numbers of an annealing; changing them compiles nothing anew.

    Attributes:
      initial_temperature: of the first step, in units of the loss.
      final_temperature: that the schedule tends to.
      rates: of the mutations.
    """

    initial_temperature: Any = 1e-2
    final_temperature: Any = 1e-5
    rates: Rates = Rates()


@flax.struct.dataclass
class AnnealState:
    """Between two rounds.

    Attributes:
      key: of the whole run.
      round: () rounds taken.
      chain: current and best net.
    """

    key: jax.Array
    round: jax.Array
    chain: Chain


@dataclass(frozen=True)
class Anneal:
    """What fixes the program of an annealing (see `search.Search`).

    Attributes:
      config: the net.
      steps: proposals per cycle of the schedule.
      rule: mutation rule.
      restarts: further cycles, each from a fresh random net; the best net of all stays.
      steps_per_round: proposals between two records. Under the one-neuron rule the hidden activations
        are kept from step to step and computed afresh this often.
    """

    config: UltraSparseConfig
    steps: int = 20_000
    rule: Rule = Rule()
    restarts: int = 0
    steps_per_round: int = 500

    def __post_init__(self):
        """Refuse an empty run."""
        if self.steps < 1 or self.steps_per_round < 1 or self.restarts < 0:
            raise ValueError("steps and steps_per_round must be at least 1, restarts at least 0")

    @property
    def rounds(self) -> int:
        """Rounds of all cycles."""
        return self._rounds_per_cycle * (self.restarts + 1)

    @property
    def _rounds_per_cycle(self) -> int:
        return -(-self.steps // self.steps_per_round)

    def init(self, key: jax.Array, goal: Objective, hyper: AnnealParams) -> AnnealState:
        """The state before the first round, at a random net."""
        del hyper
        params = self._fresh(key, jnp.asarray(0), goal)
        return AnnealState(key, jnp.asarray(0), start_chain(params, evaluate(self.config, params, goal)))

    def advance(self, state: AnnealState, goal: Objective, hyper: AnnealParams) -> tuple[AnnealState, Record]:
        """``steps_per_round`` proposals, fewer at the end of a cycle."""
        chain = self._restarted(state, goal) if self.restarts else state.chain
        round_in_cycle = state.round % self._rounds_per_cycle
        number = round_in_cycle * self.steps_per_round + jnp.arange(self.steps_per_round)
        active = number < self.steps
        cooling = (hyper.final_temperature / hyper.initial_temperature) ** (number / self.steps)
        temperature = hyper.initial_temperature * cooling
        draw_key, chance_key = jax.random.split(jax.random.fold_in(state.key, state.round))
        log_chance = log_uniform(chance_key, (self.steps_per_round,))
        how = (draw_key, self.config, self.rule, hyper.rates, self.steps_per_round)
        decide = (log_chance, temperature, active)
        if self.rule.touched == "one_neuron":
            steps = Steps(one_neuron.draw(*how), *decide)
            chain, accepted = one_neuron.walk(chain, steps, config=self.config, rule=self.rule, goal=goal)
        else:
            steps = Steps(draw(*how), *decide)
            chain, accepted = walk(chain, steps, self.rule, partial(evaluate, self.config, goal=goal))
        record = Record(
            loss=chain.best_loss,
            current=chain.loss,
            temperature=jnp.min(jnp.where(active, temperature, temperature[0])),
            accepted=jnp.sum(accepted) / jnp.sum(active),
            saturation=saturation(self.config, chain.params, goal),
        )
        return AnnealState(state.key, state.round + 1, chain), record

    def best(self, state: AnnealState) -> tuple[Params, jax.Array]:
        """The best net seen in any cycle."""
        return state.chain.best_params, state.chain.best_loss

    def _restarted(self, state: AnnealState, goal: Objective) -> Chain:
        again = (state.round > 0) & (state.round % self._rounds_per_cycle == 0)
        params = self._fresh(state.key, state.round, goal)
        now = (params, evaluate(self.config, params, goal))
        current = choose(again, now, (state.chain.params, state.chain.loss))
        return dataclasses.replace(state.chain, params=current[0], loss=current[1])

    def _fresh(self, key: jax.Array, number: jax.Array, goal: Objective) -> Params:
        # A round splits its key in two, which are the folds 0 and 1.
        net_key = jax.random.fold_in(jax.random.fold_in(key, number), 2)
        return random_net(net_key, self.config, goal.features.dtype)


def log_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Logarithms of uniform numbers in (0, 1]."""
    return -jax.random.exponential(key, shape)


def anneal(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    steps: int = 20_000,
    initial_temperature: float = 1e-2,
    final_temperature: float = 1e-5,
    rule: str | Rule = "core",
    rates: Rates | None = None,
    restarts: int = 0,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """Train weights and index tables without gradients.

    Step s proposes one mutation and accepts it if the loss falls, or else with probability
    exp(-rise / T), T = T0 (T1 / T0)**(s / steps). The best net seen is returned.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      goal: training batch and loss, used whole in every step.
      steps: proposals.
      initial_temperature: T0, in units of the loss.
      final_temperature: T1.
      rule: "core" (the published rule), "numpy", "variable_k", "sparse_touch", "one_neuron", or a `Rule`.
      rates: of the mutations; None takes those of the named rule.
      restarts: further runs of ``steps`` proposals, each from a fresh net.
      chains: independent runs, as leading axis of the result; None makes one run without it.
      mesh: devices to spread the chains over.

    Returns:
      `SearchResult`.

    Raises:
      ValueError: the batch does not fit the net, an unknown rule, or impossible settings.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve import objective
      >>> x = jnp.linspace(-1, 1, 50)
      >>> goal = objective(jnp.stack([x, x * x], axis=-1), jnp.tanh(x))
      >>> config = UltraSparseConfig.fixed_k(2, hidden_size=4, inputs_per_neuron=1)
      >>> bool(anneal(jax.random.key(0), config, goal, steps=500).loss < 0.1)
      True

    Source: specs/ultra_sparse.md section 6.
    """
    chosen, default_rates = named_rule(rule)
    search = Anneal(config, steps, chosen, restarts, min(steps, Anneal.steps_per_round))
    hyper = AnnealParams(initial_temperature, final_temperature, rates or default_rates)
    check_temperatures(initial_temperature, final_temperature)
    return run_chains(key, search, goal, hyper, chains=chains, mesh=mesh)


def check_temperatures(initial: float, final: float) -> None:
    """Refuse a schedule that is not positive.

    Raises:
      ValueError: says the two.
    """
    if not (initial > 0 and final > 0):
        raise ValueError(f"temperatures must be positive, not {initial} and {final}")
