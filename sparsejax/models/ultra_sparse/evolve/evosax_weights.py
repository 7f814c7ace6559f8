"""Any algorithm of evosax on the weights of a net whose index tables stay as they are."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import Objective, evaluate
from sparsejax.models.ultra_sparse.evolve.search import Record, SearchResult, check_fit, saturation
from sparsejax.typing import Params

_SPREAD = 0.1


def evolve_weights(
    key: jax.Array,
    config: UltraSparseConfig,
    params: Params,
    goal: Objective,
    *,
    algorithm: str = "CMA_ES",
    population_size: int = 32,
    generations: int = 500,
    settings: Any = None,
) -> SearchResult:
    """Train the weights and biases with an evolution strategy of the evosax library.

    Args:
      key: PRNG key.
      config: float layers, sparse, masked or dense.
      params: where to begin; its index tables, masks and live counts stay.
      goal: training batch and loss.
      algorithm: name in `evosax.algorithms`: "CMA_ES", "Sep_CMA_ES", "Open_ES", "SimpleGA", ...
      population_size: candidates per generation.
      generations: how many.
      settings: {name: value} of the algorithm's own parameters, such as {"std_init": 0.5}; the others keep
        evosax's defaults.

    Returns:
      `SearchResult` with one record per generation; ``accepted`` is the share of candidates better than
      the best before them. The start is returned where nothing better was found.

    Raises:
      ValueError: unknown algorithm or setting, or the batch does not fit the net.
      ModuleNotFoundError: evosax is not installed.

    Example:
      >>> from sparsejax.models.ultra_sparse import UltraSparseNet, objective
      >>> x = jnp.linspace(-1, 1, 50)
      >>> goal = objective(jnp.stack([x, x * x], axis=-1), jnp.tanh(x))
      >>> config = UltraSparseConfig.fixed_k(2, hidden_size=4, inputs_per_neuron=2)
      >>> start = jax.jit(UltraSparseNet(config).init)(jax.random.key(0), jnp.zeros(2))["params"]
      >>> bool(evolve_weights(jax.random.key(1), config, start, goal, generations=50).loss < 0.05)
      True

    Source: https://github.com/RobertTLange/evosax (Lange 2022); the original used the ``cma`` package
    (specs/ultra_sparse.md section 6).
    """
    check_fit(config, goal)
    weights, fixed = split_weights(params)
    leaves, structure = jax.tree.flatten(weights)
    strategy = _strategy(algorithm, population_size, structure, tuple(leaf.shape for leaf in leaves))
    hyper = strategy.default_params
    if unknown := (settings or {}).keys() - vars(hyper).keys():
        raise ValueError(f"{algorithm} has no setting {sorted(unknown)}; it has {sorted(vars(hyper))}")
    hyper = hyper.replace(**(settings or {}))
    # Python numbers and arrays would each make a compiled run of their own.
    hyper = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), hyper)
    return _evolve(
        key, hyper, fixed, weights, goal, strategy=strategy, config=config, generations=generations
    )


def split_weights(params: Params) -> tuple[dict[str, dict[str, jax.Array]], dict[str, dict[str, jax.Array]]]:
    """The float arrays of a net, and the others: both nested like the parameters."""
    weights = {n: {k: v for k, v in own.items() if _is_float(v)} for n, own in params.items()}
    fixed = {n: {k: v for k, v in own.items() if not _is_float(v)} for n, own in params.items()}
    return weights, fixed


def _is_float(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


@lru_cache(maxsize=64)
def _strategy(
    algorithm: str, population_size: int, structure: Any, shapes: tuple[tuple[int, ...], ...]
) -> Any:
    """One object per setting: a compiled run is found again by its identity."""
    from evosax import algorithms

    if algorithm not in algorithms.algorithms:
        raise ValueError(f"evosax has no algorithm {algorithm!r}; it has {', '.join(algorithms.algorithms)}")
    solution = jax.tree.unflatten(structure, [jnp.zeros(shape) for shape in shapes])
    return algorithms.algorithms[algorithm](population_size, solution)


@partial(jax.jit, static_argnames=("strategy", "config", "generations"))
def _evolve(
    key: jax.Array,
    hyper: Any,
    fixed: Any,
    weights: Any,
    goal: Objective,
    *,
    strategy: Any,
    config: UltraSparseConfig,
    generations: int,
) -> SearchResult:
    def loss_of(candidate: Any) -> jax.Array:
        return evaluate(config, {name: {**fixed[name], **own} for name, own in candidate.items()}, goal)

    def generation(carry: tuple, step_key: jax.Array) -> tuple[tuple, Record]:
        state, best, best_loss = carry
        ask_key, tell_key = jax.random.split(step_key)
        population, state = strategy.ask(ask_key, state, hyper)
        losses = jax.vmap(loss_of)(population)
        state, _ = strategy.tell(tell_key, population, losses, state, hyper)
        # A candidate whose loss is not finite is never the best.
        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        first = jnp.argmin(losses)
        better = losses[first] < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new[first], old), population, best)
        now = {name: {**fixed[name], **own} for name, own in best.items()}
        record = Record(
            loss=jnp.minimum(best_loss, losses[first]),
            current=jnp.mean(losses),
            temperature=jnp.zeros_like(best_loss),
            accepted=jnp.mean(losses < best_loss),
            saturation=saturation(config, now, goal),
        )
        return (state, best, record.loss), record

    init_key, run_key = jax.random.split(key)
    start = _start(strategy, init_key, weights, hyper, loss_of)
    carry = (start, weights, loss_of(weights))
    (_, best, best_loss), history = jax.lax.scan(generation, carry, jax.random.split(run_key, generations))
    return SearchResult({name: {**fixed[name], **own} for name, own in best.items()}, best_loss, history)


def _start(strategy: Any, key: jax.Array, weights: Any, hyper: Any, loss_of: Any) -> Any:
    """Distribution-based algorithms begin at a mean, population-based ones at a population around it."""
    from evosax.algorithms.population_based.base import PopulationBasedAlgorithm

    if not isinstance(strategy, PopulationBasedAlgorithm):
        return strategy.init(key, weights, hyper)
    size = strategy.population_size
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves) + 1)
    around = [
        (leaf + _SPREAD * jax.random.normal(own, (size, *leaf.shape), leaf.dtype)).at[0].set(leaf)
        for own, leaf in zip(keys[1:], leaves, strict=True)
    ]
    population = jax.tree.unflatten(structure, around)
    return strategy.init(keys[0], population, jax.vmap(loss_of)(population), hyper)
