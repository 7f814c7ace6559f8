"""Simulated annealing of one net as a single compiled loop; `jax.vmap` over keys runs many chains."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.evolve.mutation import mutate
from sparsejax.models.ultra_sparse.model import UltraSparseNet, forward
from sparsejax.typing import Features, Outputs, Params


class AnnealResult(NamedTuple):
    """The best net of a chain.

    Attributes:
      params: its parameters.
      mse: () its mean squared error on the training batch.
      accepted: () share of accepted proposals.
    """

    params: Params
    mse: jax.Array
    accepted: jax.Array


def anneal(
    key: jax.Array,
    config: UltraSparseConfig,
    features: Features,
    targets: Outputs,
    *,
    steps: int = 20_000,
    initial_temperature: float = 1e-2,
    final_temperature: float = 1e-5,
    weight_rate: float = 0.1,
    weight_scale: float = 0.1,
    swap_rate: float = 0.05,
) -> AnnealResult:
    """Train weights and index table without gradients.

    Step s proposes one mutation and accepts it if the error falls, or else with probability
    exp(-rise / T), T = T0 (T1 / T0)**(s / steps). The best net seen is returned.

    Args:
      key: PRNG key of the chain.
      config: one sparse layer under dense ones.
      features: (b, i) training batch, used whole in every step.
      targets: (b, o).
      steps: proposals.
      initial_temperature: T0, in units of squared error.
      final_temperature: T1.
      weight_rate: see `mutate`.
      weight_scale: see `mutate`.
      swap_rate: see `mutate`.

    Returns:
      `AnnealResult`.

    Example:
      >>> x = jnp.linspace(-3, 3, 20)
      >>> config = UltraSparseConfig.fixed_k(input_size=2, hidden_size=2, inputs_per_neuron=1)
      >>> features = jnp.stack([x, x * x], axis=-1)
      >>> result = anneal(jax.random.key(0), config, features, jnp.tanh(x)[:, None], steps=500)
      >>> bool(result.mse < 0.1)
      True

    Source: specs/ultra_sparse.md section 6.
    """
    net = UltraSparseNet(config)
    features_first = jnp.asarray(features).T

    def error(params: Params) -> jax.Array:
        outputs = forward(config, params, features_first, features_first=True)
        return jnp.mean((outputs.T - targets) ** 2)

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, jax.Array]:
        current, current_mse, best, best_mse = carry
        mutation_key, accept_key = jax.random.split(jax.random.fold_in(key, number))
        proposal = mutate(
            mutation_key,
            current,
            config.input_size,
            weight_rate=weight_rate,
            weight_scale=weight_scale,
            swap_rate=swap_rate,
        )
        mse = error(proposal)
        cooling = (final_temperature / initial_temperature) ** (number / steps)
        chance = jnp.log(jax.random.uniform(accept_key, minval=jnp.finfo(mse.dtype).tiny))
        accept = chance < (current_mse - mse) / (initial_temperature * cooling)
        current, current_mse = _select(accept, (proposal, mse), (current, current_mse))
        best, best_mse = _select(mse < best_mse, (proposal, mse), (best, best_mse))
        return (current, current_mse, best, best_mse), accept

    start_key = jax.random.fold_in(key, steps)
    start = net.init(start_key, jnp.zeros(config.input_size, features_first.dtype))["params"]
    start_mse = error(start)
    carry, accepted = jax.lax.scan(step, (start, start_mse, start, start_mse), jnp.arange(steps))
    return AnnealResult(carry[2], carry[3], jnp.mean(accepted))


def _select(condition: jax.Array, yes: tuple, no: tuple) -> tuple:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
