"""Weights and inputs in turn: a guided change of one neuron's inputs, a short polish, a verdict."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.chain import choose
from sparsejax.models.ultra_sparse.evolve.objective import Objective
from sparsejax.models.ultra_sparse.evolve.polish import check_stack, descend, flatten, unflatten
from sparsejax.models.ultra_sparse.evolve.proposals import (
    Candidates,
    candidates,
    first_net,
    restart_neuron,
    sensitivity,
    swap_slot,
    usable_columns,
)
from sparsejax.models.ultra_sparse.evolve.search import Record, check_fit, run_chains, saturation
from sparsejax.typing import Params

_FIRST_MOVES = 5
"""Moves of a fresh net that only polish."""


class SparseFitResult(NamedTuple):
    """What `sparse_fit` found; with several chains every array has them as its leading axis.

    Attributes:
      params: the net of the best score seen.
      loss: () of it on the goal's rows, without the ridge.
      max_weight: () its largest absolute weight or bias; large values lose digits in float32.
      history: `Record` of arrays over blocks of moves; its losses are without the ridge.
    """

    params: Params
    loss: jax.Array
    max_weight: jax.Array
    history: Record


@flax.struct.dataclass
class HybridParams:
    """The numbers of the hybrid (see `sparse_fit`); changing them compiles nothing anew."""

    ridge: Any = 1e-9
    temperature: Any = 20.0
    greed: Any = 1.5
    start_greed: Any = 3.0
    restart_rate: Any = 0.3
    column_price: Any = 1.0
    allowed: Any = None


@flax.struct.dataclass
class Scored:
    """A polished net.

    Attributes:
      params: the net.
      score: () in nats, lower is better: rows * log(loss + ridge term) / 2 under "mse", rows * (loss +
        ridge term) otherwise, plus the price of the columns read.
      loss: () without the ridge.
    """

    params: Params
    score: jax.Array
    loss: jax.Array


@flax.struct.dataclass
class HybridState:
    """Between two blocks of moves.

    Attributes:
      key: of the whole run.
      round: () blocks done.
      current: the net that moves.
      best: of the lowest score seen.
    """

    key: jax.Array
    round: jax.Array
    current: Scored
    best: Scored


@dataclass(frozen=True)
class Hybrid:
    """What fixes the program of the hybrid (see `search.Search`).

    Attributes:
      config: one sparse tanh layer under a dense tanh or linear head.
      moves: proposals.
      steps: polish steps after each.
      final_steps: polish steps of the best net at the end.
      moves_per_round: moves between two records.
    """

    config: UltraSparseConfig
    moves: int = 1000
    steps: int = 20
    final_steps: int = 1000
    moves_per_round: int = 50

    def __post_init__(self):
        """Refuse nets that cannot be polished, and empty runs."""
        check_stack(self.config)
        if min(self.moves, self.steps, self.moves_per_round) < 1 or self.final_steps < 0:
            raise ValueError("rounds and steps must be at least 1, final_steps at least 0")

    @property
    def rounds(self) -> int:
        """Blocks of moves, those that only polish included."""
        total = _FIRST_MOVES + self.moves - (-self.final_steps // self.steps)
        return -(-total // self.moves_per_round)

    def init(self, key: jax.Array, goal: Objective, hyper: HybridParams) -> HybridState:
        """The state before the first move, at a net sampled by correlation with the targets."""
        columns = candidates(goal, hyper.allowed)
        # Rounds fold their number into the key; none is the last one.
        start_key = jax.random.fold_in(key, self.rounds)
        params = first_net(start_key, self.config, goal, columns, greed=hyper.start_greed)
        worst = jnp.asarray(jnp.inf, goal.features.dtype)
        start = Scored(params, worst, worst)
        return HybridState(key, jnp.asarray(0), start, start)

    def advance(self, state: HybridState, goal: Objective, hyper: HybridParams) -> tuple[HybridState, Record]:
        """``moves_per_round`` moves: the first and the last of the run only polish."""
        columns = candidates(goal, hyper.allowed)
        round_key = jax.random.fold_in(state.key, state.round)

        def move(nets: tuple[Scored, Scored], number: jax.Array) -> tuple[tuple[Scored, Scored], tuple]:
            key = jax.random.fold_in(round_key, number)
            return self._move(key, nets, number, goal=goal, hyper=hyper, columns=columns)

        first = state.round * self.moves_per_round - _FIRST_MOVES
        numbers = first + jnp.arange(self.moves_per_round)
        (current, best), (accepted, temperature) = jax.lax.scan(move, (state.current, state.best), numbers)
        share = jnp.mean(accepted)
        own = saturation(self.config, current.params, goal)
        record = Record(best.loss, current.loss, temperature[-1], share, own)
        return HybridState(state.key, state.round + 1, current, best), record

    def best(self, state: HybridState) -> tuple[Params, jax.Array]:
        """The net of the lowest score seen."""
        return state.best.params, state.best.loss

    def _move(
        self,
        key: jax.Array,
        nets: tuple[Scored, Scored],
        number: jax.Array,
        *,
        goal: Objective,
        hyper: HybridParams,
        columns: Candidates,
    ) -> tuple[tuple[Scored, Scored], tuple]:
        current, best = nets
        propose_key, accept_key = jax.random.split(key)
        current = choose(number < self.moves, current, best)
        searching = (number >= 0) & (number < self.moves)
        changed = self._propose(propose_key, current.params, goal, hyper, columns)
        proposal = self._refine(choose(searching, changed, current.params), goal, hyper)
        temperature = jnp.where(searching, hyper.temperature * (1 - number / self.moves), 0)
        accept = proposal.score < current.score + temperature * jax.random.exponential(accept_key)
        current = choose(accept, proposal, current)
        best = choose(proposal.score < best.score, proposal, best)
        return (current, best), (accept, temperature)

    def _propose(
        self, key: jax.Array, params: Params, goal: Objective, hyper: HybridParams, columns: Candidates
    ) -> Params:
        kind_key, move_key = jax.random.split(key)
        now = sensitivity(self.config, params, goal)
        how = {"greed": hyper.greed, "price": self._price(hyper)}
        swapped = swap_slot(move_key, params, goal, columns, now, **how)
        restarted = restart_neuron(move_key, params, goal, columns, now, **how)
        return choose(jax.random.bernoulli(kind_key, hyper.restart_rate), restarted, swapped)

    def _refine(self, params: Params, goal: Objective, hyper: HybridParams) -> Scored:
        indices = params["layer_0"]["indices"]
        flat, history = descend(
            self.config, indices, flatten(params), goal, steps=self.steps, ridge=hyper.ridge
        )
        rows = jnp.sum(goal.row_weights > 0)
        fit = rows * (jnp.log(history[-1]) / 2 if goal.loss == "mse" else history[-1])
        read = jnp.zeros(self.config.input_size, bool).at[indices.ravel()].set(True)
        score = fit + self._price(hyper) * jnp.sum(read)
        loss = history[-1] - hyper.ridge * jnp.sum(flat**2)
        return Scored(unflatten(self.config, indices, flat), score, loss)

    def _price(self, hyper: HybridParams) -> jax.Array:
        return hyper.column_price * math.log(self.config.input_size)


def sparse_fit(
    key: jax.Array,
    config: UltraSparseConfig,
    goal: Objective,
    *,
    rounds: int = 1000,
    steps: int = 20,
    final_steps: int = 1000,
    ridge: float = 1e-9,
    temperature: float = 20.0,
    greed: float = 1.5,
    start_greed: float = 3.0,
    restart_rate: float = 0.3,
    column_price: float = 1.0,
    allowed: Any = None,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SparseFitResult:
    """Fit a sparse net: weights by second-order steps, inputs by guided proposals.

    A net sampled by correlation is polished. Then every round one neuron exchanges an input
    (`proposals.swap_slot`) or starts anew (`proposals.restart_neuron`), ``steps`` polish steps follow, and
    the result replaces the current net if its score, in nats, is lower or not higher than an exponential
    variable times a temperature that falls to 0. The score is rows * log(loss) / 2 (rows * loss under
    cross entropy), ridge included, plus ``column_price * log(columns)`` for every distinct column that the
    net reads: the risk inflation criterion, which keeps chance correlations of many columns out. At the
    end the best net is polished. No other data than the goal's rows is used.

    Computation follows the dtype of the goal; noise-free targets want float64 (``jax.enable_x64(True)``
    around the call and `objective`). Pure: `jax.vmap` it over keys and goals.

    Args:
      key: PRNG key.
      config: one sparse tanh layer under a dense tanh or linear head.
      goal: batch and loss.
      rounds: proposals.
      steps: polish steps after each (see `polish`).
      final_steps: polish steps at the end.
      ridge: price of squared weights, in units of the loss: about 1e-11 for noise-free targets, 1e-5 for
        noisy ones, 1e-3 under cross entropy.
      temperature: nats, of the first round.
      greed: proposals are drawn in proportion to ``worth**greed``.
      start_greed: the first inputs are drawn in proportion to ``r**(2 * start_greed)``; 0 takes any.
      restart_rate: share of the rounds that restart a neuron.
      column_price: 1 is the risk inflation criterion, 0 makes columns free.
      allowed: (i,) bool, columns that may be read; None allows all. Constant columns never are.
      chains: independent runs, as leading axis of the result; None makes one run without it.
      mesh: devices to spread the chains over.

    Returns:
      `SparseFitResult`.

    Raises:
      ValueError: another stack, a batch that does not fit the net, fewer usable columns than inputs per
        neuron, or impossible settings.

    Example:
      >>> from sparsejax.models.ultra_sparse.evolve.objective import objective
      >>> features = jax.random.uniform(jax.random.key(0), (200, 30))
      >>> goal = objective(features, features[:, 3] - (2 * features[:, 7] - 1) ** 2)
      >>> config = UltraSparseConfig.fixed_k(30, 3, 1, 1, "linear")
      >>> result = sparse_fit(jax.random.key(1), config, goal, rounds=50, ridge=1e-6, final_steps=100)
      >>> sorted(set(result.params["layer_0"]["indices"].ravel().tolist()))
      [3, 7]

    Source: specs/ultra_sparse.md section 12; Foster and George, The risk inflation criterion for multiple
    regression, Annals of Statistics 22 (1994) 1947.
    """
    search = Hybrid(config, rounds, steps, final_steps)
    search = dataclasses.replace(search, moves_per_round=min(search.moves_per_round, rounds))
    hyper = HybridParams(ridge, temperature, greed, start_greed, restart_rate, column_price, allowed)
    check_fit(config, goal)
    _check_columns(config, goal, allowed)
    found = run_chains(key, search, goal, hyper, chains=chains, mesh=mesh)
    largest = jnp.max(jnp.abs(flatten(found.params))) if chains is None else _largest(found.params)
    return SparseFitResult(found.params, found.loss, largest, found.history)


_largest = jax.vmap(lambda params: jnp.max(jnp.abs(flatten(params))))


def _check_columns(config: UltraSparseConfig, goal: Objective, allowed: Any) -> None:
    """Refuse tables that cannot be filled with distinct columns, where the values are known already."""
    if isinstance(goal.features, jax.core.Tracer) or isinstance(allowed, jax.core.Tracer):
        return
    columns, fan_in = goal.features.shape[0], config.layers[0].fan_in or 0
    if allowed is not None and np.shape(allowed) != (columns,):
        raise ValueError(
            f"allowed has shape {np.shape(allowed)}: one entry per column, ({columns},), is needed"
        )
    with jax.ensure_compile_time_eval():
        usable = int(jnp.sum(usable_columns(goal, allowed)))
    if usable < fan_in:
        raise ValueError(
            f"only {usable} of {columns} columns vary and are allowed: neurons of {fan_in} inputs cannot be "
            "filled; lower inputs_per_neuron or allow more columns"
        )
