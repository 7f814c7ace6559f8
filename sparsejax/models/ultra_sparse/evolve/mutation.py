"""Random changes of a net: Gaussian steps on some weights, new inputs for some neurons."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.typing import IndexTable, Params


def mutate(
    key: jax.Array,
    params: Params,
    input_size: int,
    *,
    weight_rate: float,
    weight_scale: float,
    swap_rate: float,
) -> Params:
    """One proposal by the original's rule.

    Every weight and bias moves with probability ``weight_rate`` by a normal step of ``weight_scale``. Every
    neuron of a sparse layer exchanges, with probability ``swap_rate``, one input for one that it does not
    read yet; the weight of that slot is kept.

    Args:
      key: PRNG key.
      params: of a net with one sparse layer ``layer_0`` over ``input_size`` features and dense layers.
      input_size: features to choose from.
      weight_rate: probability per value.
      weight_scale: standard deviation of a step.
      swap_rate: probability per neuron.

    Returns:
      parameters of the same structure.

    Source: specs/ultra_sparse.md section 5, the core rule.
    """
    leaves, structure = jax.tree.flatten(dict(params))
    keys = jax.random.split(key, len(leaves) + 1)
    moved = [_moved(k, leaf, weight_rate, weight_scale) for k, leaf in zip(keys[1:], leaves, strict=True)]
    mutated = jax.tree.unflatten(structure, moved)
    table = swap_inputs(keys[0], params["layer_0"]["indices"], input_size, swap_rate)
    return {**mutated, "layer_0": {**mutated["layer_0"], "indices": table}}


def swap_inputs(key: jax.Array, indices: IndexTable, input_size: int, swap_rate: float) -> IndexTable:
    """A table in which some neurons read one new input; inputs stay distinct within a neuron.

    Args:
      key: PRNG key.
      indices: (h, k), distinct within a row.
      input_size: inputs to choose from; with ``k == input_size`` nothing can change.
      swap_rate: probability per neuron.
    """
    features, fan_in = indices.shape
    if fan_in >= input_size:
        return indices
    chance_key, slot_key, input_key = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(chance_key, swap_rate, (features,))
    slot = jax.random.randint(slot_key, (features,), 0, fan_in)
    # The r-th unused input: step over every used one that is not larger.
    fresh = jax.random.randint(input_key, (features,), 0, input_size - fan_in)
    for used in jnp.sort(indices, axis=1).T:
        fresh = fresh + (fresh >= used)
    here = chosen[:, None] & (jnp.arange(fan_in) == slot[:, None])
    return jnp.where(here, fresh[:, None].astype(indices.dtype), indices)


def _moved(key: jax.Array, leaf: jax.Array, rate: float, scale: float) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    mask_key, step_key = jax.random.split(key)
    chosen = jax.random.bernoulli(mask_key, rate, leaf.shape)
    return leaf + jnp.where(chosen, scale * jax.random.normal(step_key, leaf.shape, leaf.dtype), 0)
