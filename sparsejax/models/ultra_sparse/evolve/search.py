"""What every search has in common: a start, rounds that a compiled loop takes, many chains side by side."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.objective import Objective
from sparsejax.models.ultra_sparse.metrics import saturated_share
from sparsejax.models.ultra_sparse.model import UltraSparseNet, activations
from sparsejax.typing import Params


class Record(NamedTuple):
    """What a round leaves behind for logs and plots; () each, or with the rounds as leading axis.

    Attributes:
      loss: best so far.
      current: of the current net, or the mean over a population.
      temperature: of the round's last step; 0 for searches without one.
      accepted: share of the round's proposals that were accepted.
      saturation: share of hidden activations with |h| > 0.95, current net or best of the population.
    """

    loss: jax.Array
    current: jax.Array
    temperature: jax.Array
    accepted: jax.Array
    saturation: jax.Array


class SearchResult(NamedTuple):
    """What a search found; with several chains every array has them as its leading axis.

    Attributes:
      params: the best net seen.
      loss: () of it on the training batch.
      history: `Record` of (rounds,) arrays.
    """

    params: Params
    loss: jax.Array
    history: Record


class Search(Protocol):
    """An algorithm: hashable settings that fix the program, and pure functions on states.

    Everything that may change without a new compilation is in ``hyper``, the algorithm's own pytree.
    """

    @property
    def config(self) -> UltraSparseConfig:
        """The net that is searched for."""

    @property
    def rounds(self) -> int:
        """How often `advance` is called in a whole run."""

    def init(self, key: jax.Array, goal: Objective, hyper: Any) -> Any:
        """The state before the first round."""

    def advance(self, state: Any, goal: Objective, hyper: Any) -> tuple[Any, Record]:
        """One round."""

    def best(self, state: Any) -> tuple[Params, jax.Array]:
        """The best net seen, and its loss."""


def random_net(key: jax.Array, config: UltraSparseConfig, dtype: Any) -> Params:
    """A net as `UltraSparseNet` initialises it."""
    return UltraSparseNet(config).init(key, jnp.zeros(config.input_size, dtype))["params"]


def saturation(config: UltraSparseConfig, params: Params, goal: Objective) -> jax.Array:
    """() share of hidden activations beyond +-0.95 on a batch."""
    return saturated_share(activations(config, params, goal.features, features_first=True)[:-1])


def run(key: jax.Array, search: Search, goal: Objective, hyper: Any) -> SearchResult:
    """A whole search as one loop, to be jitted or vmapped over keys and ``hyper``."""

    def step(state: Any, _: None) -> tuple[Any, Record]:
        return search.advance(state, goal, hyper)

    state, history = jax.lax.scan(step, search.init(key, goal, hyper), None, search.rounds)
    return SearchResult(*search.best(state), history)


def run_chains(
    key: jax.Array,
    search: Search,
    goal: Objective,
    hyper: Any,
    *,
    chains: int | None = None,
    mesh: Mesh | None = None,
) -> SearchResult:
    """A search once, or several times from different keys in one compiled program.

    Args:
      key: PRNG key.
      search: the algorithm and its settings.
      goal: the training batch.
      hyper: what the algorithm's numbers are.
      chains: independent runs, as the leading axis of every array of the result; None makes one without
        that axis.
      mesh: devices to spread the chains over, along the mesh's first axis; they may be of several processes,
        which all make the same call. Chains do not communicate; at the end every device gets all results.

    Raises:
      ValueError: the net does not fit the batch, or the chains do not divide among the devices.
    """
    check_fit(search.config, goal)
    if chains is None:
        return _run(key, search, goal, hyper)
    if chains < 1:
        raise ValueError(f"chains must be at least 1, not {chains}")
    keys = jax.random.split(key, chains)
    if mesh is None:
        return _run_vmapped(keys, search, goal, hyper)
    devices = mesh.shape[mesh.axis_names[0]]
    if chains % devices:
        raise ValueError(f"{chains} chains do not divide among the {devices} devices of the mesh")
    return _run_sharded(keys, search, goal, hyper, mesh)


def check_fit(config: UltraSparseConfig, goal: Objective) -> None:
    """Refuse a batch that the net cannot read or whose targets it cannot give.

    Raises:
      ValueError: says both sizes.
    """
    for what, own, needed in (
        ("features", config.input_size, goal.features.shape[0]),
        ("outputs", config.output_size, goal.targets.shape[0]),
    ):
        if own != needed:
            raise ValueError(f"the net has {own} {what}, the batch {needed}")


_run = jax.jit(run, static_argnums=1)


def _chains(keys: jax.Array, search: Search, goal: Objective, hyper: Any) -> SearchResult:
    return jax.vmap(lambda key: run(key, search, goal, hyper))(keys)


_run_vmapped = jax.jit(_chains, static_argnums=1)


@partial(jax.jit, static_argnums=(1, 4))
def _run_sharded(keys: jax.Array, search: Search, goal: Objective, hyper: Any, mesh: Mesh) -> SearchResult:
    along, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()

    def body(keys: jax.Array, goal: Objective, hyper: Any) -> SearchResult:
        return _chains(keys, search, goal, hyper)

    specs = (along, whole, whole)
    spread = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=along, check_vma=False)
    # Nets are small, and a process can read only what is on devices of its own.
    return jax.lax.with_sharding_constraint(spread(keys, goal, hyper), NamedSharding(mesh, whole))
