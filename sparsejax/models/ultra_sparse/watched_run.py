"""A run of several chains side by side, in rounds that can be watched and ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.hybrid import Hybrid
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.search import Search
from sparsejax.typing import Params

Progress = Callable[[int, float], Any]
"""Called after each of a search's rounds with their number and the least loss; a true result ends it."""


class Run(NamedTuple):
    """Chains side by side, as their leading axis.

    Attributes:
      params: best net of each.
      losses: (chains,) training losses.
      scores: (chains,) what the chains compare by; lower is better.
      history: (chains, rounds) best loss after each round.
    """

    params: Params
    losses: np.ndarray
    scores: np.ndarray
    history: np.ndarray


def run_rounds(
    key: jax.Array,
    search: Search,
    goal: Objective,
    hyper: Any,
    *,
    chains: int,
    judge: Objective | None = None,
    callback: Progress | None = None,
) -> Run:
    """Run chains side by side, one compiled call per round.

    Args:
      key: PRNG key.
      search: the algorithm.
      goal: the training batch.
      hyper: what the algorithm's numbers are.
      chains: how many.
      judge: batch whose loss the chains compare by. None takes what the algorithm itself minimises: the
        training loss, for the hybrid with its price of columns.
      callback: see `Progress`.
    """
    keys = jax.random.split(key, chains)
    state = _init(keys, search, goal, hyper)
    history = []
    for number in range(search.rounds):
        state, record = _advance(state, search, goal, hyper)
        history.append(record.loss)
        if callback is not None and callback(number + 1, float(record.loss.min())):
            break
    params, losses = jax.vmap(search.best)(state)
    if judge is not None:
        scores = _judged(params, search.config, judge)
    else:
        scores = state.best.score if isinstance(search, Hybrid) else losses
    return Run(params, np.asarray(losses), np.asarray(scores), np.stack(history, axis=1))


@partial(jax.jit, static_argnums=1)
def _init(keys: jax.Array, search: Search, goal: Objective, hyper: Any) -> Any:
    return jax.vmap(lambda key: search.init(key, goal, hyper))(keys)


@partial(jax.jit, static_argnums=1)
def _advance(state: Any, search: Search, goal: Objective, hyper: Any) -> tuple[Any, Any]:
    return jax.vmap(lambda own: search.advance(own, goal, hyper))(state)


@partial(jax.jit, static_argnums=1)
def _judged(params: Params, config: UltraSparseConfig, judge: Objective) -> jax.Array:
    return jax.vmap(lambda own: evaluate(config, own, judge))(params)
