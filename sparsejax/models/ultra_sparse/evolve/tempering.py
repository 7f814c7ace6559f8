"""Parallel tempering: replicas at a ladder of temperatures that exchange their nets."""

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
from sparsejax.models.ultra_sparse.evolve.anneal import check_temperatures, log_uniform
from sparsejax.models.ultra_sparse.evolve.chain import Chain, Steps, start_chain, walk
from sparsejax.models.ultra_sparse.evolve.mutation import Rates, Rule, draw, whole_net_rule
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
class TemperingParams:
    """The numbers of a run; changing them compiles nothing anew.

    Attributes:
      coldest: temperature of replica 0, in units of the loss.
      hottest: temperature of the last replica; those between form a geometric ladder.
      rates: of the mutations.
    """

    coldest: Any = 1e-6
    hottest: Any = 1e-2
    rates: Rates = Rates()


@flax.struct.dataclass
class TemperingState:
    """Between two rounds.

    Attributes:
      key: of the whole run.
      round: () rounds taken.
      chains: of r replicas, the coldest first; every array has r as its leading axis.
    """

    key: jax.Array
    round: jax.Array
    chains: Chain


@dataclass(frozen=True)
class Tempering:
    """What fixes the program of a run (see `search.Search`).

    Attributes:
      config: the net.
      replicas: r, at least 2.
      steps: proposals per replica.
      swap_every: proposals between two rounds of exchanges.
      rule: mutation rule.
    """

    config: UltraSparseConfig
    replicas: int = 8
    steps: int = 20_000
    swap_every: int = 100
    rule: Rule = Rule()

    def __post_init__(self):
        """Refuse an empty run."""
        if self.replicas < 2 or self.steps < 1 or self.swap_every < 1:
            raise ValueError("replicas must be at least 2, steps and swap_every at least 1")

    @property
    def rounds(self) -> int:
        """Exchanges that hold all steps."""
        return -(-self.steps // self.swap_every)

    def init(self, key: jax.Array, goal: Objective, hyper: TemperingParams) -> TemperingState:
        """The state before the first round, at random nets."""
        del hyper
        # Rounds fold their numbers into the key; this number is none of theirs.
        keys = jax.random.split(jax.random.fold_in(key, jnp.iinfo(jnp.int32).max), self.replicas)
        nets = jax.vmap(lambda own: random_net(own, self.config, goal.features.dtype))(keys)
        losses = jax.vmap(lambda net: evaluate(self.config, net, goal))(nets)
        return TemperingState(key, jnp.asarray(0), jax.vmap(start_chain)(nets, losses))

    def advance(
        self, state: TemperingState, goal: Objective, hyper: TemperingParams
    ) -> tuple[TemperingState, Record]:
        """``swap_every`` proposals of every replica, then exchanges between neighbours."""
        draw_key, chance_key, swap_key = jax.random.split(jax.random.fold_in(state.key, state.round), 3)
        ladder = hyper.coldest * (hyper.hottest / hyper.coldest) ** jnp.linspace(0, 1, self.replicas)
        shape = (self.replicas, self.swap_every)
        draws = draw(draw_key, self.config, self.rule, hyper.rates, self.replicas * self.swap_every)
        number = state.round * self.swap_every + jnp.arange(self.swap_every)
        steps = Steps(
            jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), draws),
            log_uniform(chance_key, shape),
            jnp.broadcast_to(ladder[:, None], shape),
            jnp.broadcast_to(number < self.steps, shape),
        )
        take = partial(walk, rule=self.rule, evaluate=partial(evaluate, self.config, goal=goal))
        chains, accepted = jax.vmap(take)(state.chains, steps)
        order = exchange(log_uniform(swap_key, (self.replicas,)), chains.loss, ladder, state.round % 2)
        chains = dataclasses.replace(
            chains, params=jax.tree.map(lambda leaf: leaf[order], chains.params), loss=chains.loss[order]
        )
        state = TemperingState(state.key, state.round + 1, chains)
        coldest = jax.tree.map(lambda leaf: leaf[0], chains.params)
        record = Record(
            loss=jnp.min(chains.best_loss),
            current=chains.loss[0],
            temperature=ladder[0],
            accepted=jnp.mean(accepted),
            saturation=saturation(self.config, coldest, goal),
        )
        return state, record

    def best(self, state: TemperingState) -> tuple[Params, jax.Array]:
        """The best net that any replica saw."""
        best = jnp.argmin(state.chains.best_loss)
        params = jax.tree.map(lambda leaf: leaf[best], state.chains.best_params)
        return params, state.chains.best_loss[best]


def exchange(
    log_chance: jax.Array, losses: jax.Array, temperatures: jax.Array, parity: jax.Array
) -> jax.Array:
    """Which replica's net each temperature gets: neighbours i and i + 1, i of the given parity, may swap.

    They do with probability min(1, exp((1 / T_i - 1 / T_j) (E_i - E_j))), which leaves the joint
    distribution exp(-E / T) as it is.

    Args:
      log_chance: (r,) logarithms of uniform numbers; pair (i, i + 1) uses that of i.
      losses: (r,) energies E.
      temperatures: (r,) T.
      parity: () 0 or 1.

    Returns:
      (r,) a permutation that is its own inverse.

    Source: Swendsen and Wang, Phys. Rev. Lett. 57 (1986), with E the loss.
    """
    inverse = 1 / temperatures
    gain = (inverse[:-1] - inverse[1:]) * (losses[:-1] - losses[1:])
    first = jnp.arange(len(losses) - 1)
    swaps = (first % 2 == parity) & (log_chance[:-1] < gain)
    up = jnp.append(swaps, False)
    down = jnp.insert(swaps, 0, False)
    return jnp.arange(len(losses)) + up.astype(int) - down.astype(int)


def tempering(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    replicas: int = 8,
    steps: int = 20_000,
    swap_every: int = 100,
    coldest: float = 1e-6,
    hottest: float = 1e-2,
    rule: str | Rule = "core",
    rates: Rates | None = None,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """Parallel tempering: hot replicas explore, cold ones climb, neighbours exchange nets.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      goal: training batch and loss.
      replicas: temperatures on the ladder.
      steps: proposals per replica.
      swap_every: proposals between exchanges.
      coldest: lowest temperature, in units of the loss.
      hottest: highest temperature.
      rule: see `anneal`; "one_neuron" is not offered here.
      rates: of the mutations; None takes those of the named rule.
      chains: independent runs, as leading axis of the result; None makes one run without it.
      mesh: devices to spread the runs over.

    Returns:
      `SearchResult`; its record follows the coldest replica.

    Raises:
      ValueError: the batch does not fit the net, an unknown rule, or impossible settings.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve import objective
      >>> x = jnp.linspace(-1, 1, 50)
      >>> goal = objective(jnp.stack([x, x * x], axis=-1), jnp.tanh(x))
      >>> config = UltraSparseConfig.fixed_k(2, hidden_size=4, inputs_per_neuron=1)
      >>> bool(tempering(jax.random.key(0), config, goal, replicas=3, steps=1000).loss < 0.1)
      True

    Source: Swendsen and Wang, Phys. Rev. Lett. 57 (1986); asked for in specs/ultra_sparse.md section 12.
    """
    chosen, default_rates = whole_net_rule(rule)
    check_temperatures(coldest, hottest)
    search = Tempering(config, replicas, steps, min(steps, swap_every), chosen)
    hyper = TemperingParams(coldest, hottest, rates or default_rates)
    return run_chains(key, search, goal, hyper, chains=chains, mesh=mesh)
