"""Hill climbing: accept nothing but strict improvements, and give up after enough failures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import choose
from sparsejax.models.ultra_sparse.evolve.mutation import Draws, Rates, Rule, draw, mutate, whole_net_rule
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
class HillClimbParams:
    """The numbers of a climb; changing them compiles nothing anew.

    Attributes:
      patience: failures in a row after which a climb ends.
      rates: of the mutations.
    """

    patience: Any = 500
    rates: Rates = Rates()


@flax.struct.dataclass
class HillClimbState:
    """Between two rounds.

    Attributes:
      key: of the whole run.
      round: () rounds taken.
      params: current net.
      loss: () of it.
      failures: () in a row.
      restarts_left: ().
      best_params: the best net of all climbs.
      best_loss: () of it.
    """

    key: jax.Array
    round: jax.Array
    params: Params
    loss: jax.Array
    failures: jax.Array
    restarts_left: jax.Array
    best_params: Params
    best_loss: jax.Array


@dataclass(frozen=True)
class HillClimb:
    """What fixes the program of a climb (see `search.Search`).

    Attributes:
      config: the net.
      steps: proposals of all climbs together.
      restarts: further climbs, each from a fresh net at the start of the round after one has ended.
      rule: mutation rule.
      steps_per_round: proposals between two records.
    """

    config: UltraSparseConfig
    steps: int = 20_000
    restarts: int = 0
    rule: Rule = Rule()
    steps_per_round: int = 500

    def __post_init__(self):
        """Refuse an empty run."""
        if self.steps < 1 or self.steps_per_round < 1 or self.restarts < 0:
            raise ValueError("steps and steps_per_round must be at least 1, restarts at least 0")

    @property
    def rounds(self) -> int:
        """Rounds that hold all steps."""
        return -(-self.steps // self.steps_per_round)

    def init(self, key: jax.Array, goal: Objective, hyper: HillClimbParams) -> HillClimbState:
        """The state before the first round, at a random net."""
        del hyper
        params, loss = self._fresh(key, jnp.asarray(0), goal)
        zero = jnp.asarray(0)
        return HillClimbState(key, zero, params, loss, zero, jnp.asarray(self.restarts), params, loss)

    def advance(
        self, state: HillClimbState, goal: Objective, hyper: HillClimbParams
    ) -> tuple[HillClimbState, Record]:
        """``steps_per_round`` proposals, fewer in the last round."""
        state = self._restarted(state, goal, hyper.patience) if self.restarts else state
        number = state.round * self.steps_per_round + jnp.arange(self.steps_per_round)
        draws = draw(
            jax.random.fold_in(state.key, state.round), self.config, self.rule, hyper.rates, len(number)
        )
        step = partial(self._step, goal=goal, patience=hyper.patience)
        carry = (state.params, state.loss, state.failures)
        (params, loss, failures), accepted = jax.lax.scan(step, carry, (draws, number < self.steps))
        best = choose(loss < state.best_loss, (params, loss), (state.best_params, state.best_loss))
        state = HillClimbState(state.key, state.round + 1, params, loss, failures, state.restarts_left, *best)
        record = Record(
            loss=state.best_loss,
            current=loss,
            temperature=jnp.zeros_like(loss),
            accepted=jnp.mean(accepted),
            saturation=saturation(self.config, params, goal),
        )
        return state, record

    def best(self, state: HillClimbState) -> tuple[Params, jax.Array]:
        """The best net of all climbs."""
        return state.best_params, state.best_loss

    def _step(
        self, carry: tuple, own: tuple[Draws, jax.Array], goal: Objective, patience: jax.Array
    ) -> tuple[tuple, jax.Array]:
        params, loss, failures = carry
        draws, active = own
        proposal = mutate(params, draws, self.rule)
        proposed_loss = evaluate(self.config, proposal, goal)
        climbing = active & (failures < patience)
        accepted = climbing & (proposed_loss < loss)
        params, loss = choose(accepted, (proposal, proposed_loss), (params, loss))
        return (params, loss, jnp.where(accepted, 0, failures + climbing)), accepted

    def _restarted(self, state: HillClimbState, goal: Objective, patience: jax.Array) -> HillClimbState:
        again = (state.failures >= patience) & (state.restarts_left > 0)
        fresh = self._fresh(state.key, state.round, goal)
        params, loss = choose(again, fresh, (state.params, state.loss))
        failures = jnp.where(again, 0, state.failures)
        best = choose(loss < state.best_loss, (params, loss), (state.best_params, state.best_loss))
        left = state.restarts_left - again
        return HillClimbState(state.key, state.round, params, loss, failures, left, *best)

    def _fresh(self, key: jax.Array, number: jax.Array, goal: Objective) -> tuple[Params, jax.Array]:
        # The draws of a round split its key in two, which are the folds 0 and 1.
        net_key = jax.random.fold_in(jax.random.fold_in(key, number), 2)
        params = random_net(net_key, self.config, goal.features.dtype)
        return params, evaluate(self.config, params, goal)


def hill_climb(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    steps: int = 20_000,
    patience: int = 500,
    restarts: int = 0,
    rule: str | Rule = "core",
    rates: Rates | None = None,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """Accept a mutation only if the loss falls; stop after ``patience`` failures in a row.

    Args:
      key: PRNG key.
      config: float layers, sparse or dense.
      goal: training batch and loss.
      steps: proposals of all climbs together; a compiled loop takes them all, ended climbs idle.
      patience: failures in a row after which a climb ends.
      restarts: further climbs from fresh nets. A new one starts at the next multiple of 500 steps.
      rule: see `anneal`; "one_neuron" is not offered here.
      rates: of the mutations; None takes those of the named rule.
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
      >>> bool(hill_climb(jax.random.key(0), config, goal, steps=1000).loss < 0.1)
      True

    Source: specs/ultra_sparse.md section 6.
    """
    chosen, default_rates = whole_net_rule(rule)
    if patience < 1:
        raise ValueError(f"patience must be at least 1, not {patience}")
    search = HillClimb(config, steps, restarts, chosen, min(steps, HillClimb.steps_per_round))
    hyper = HillClimbParams(patience, rates or default_rates)
    return run_chains(key, search, goal, hyper, chains=chains, mesh=mesh)
