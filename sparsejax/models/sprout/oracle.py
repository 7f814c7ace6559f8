"""Selections that a learned router is compared with: the best neurons by what they give, and random ones."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.sprout.config import SproutFFNConfig
from sparsejax.models.sprout.routing import Router, pooled
from sparsejax.ops.sparse_ffn import ACTIVATIONS
from sparsejax.typing import Params

Selection = Literal["router", "oracle", "random"]
SELECTIONS: tuple[Selection, ...] = ("router", "oracle", "random")


def activations(config: SproutFFNConfig, ffn: Params, inputs: jax.Array) -> jax.Array:
    """What every neuron gives (*b, f), whether it is selected or not.

    Args:
      config: of the FFN.
      ffn: its parameters.
      inputs: (*b, d).

    Example:
      >>> activations(SproutFFNConfig(2, 3), {"w_in": jnp.zeros((3, 2))}, jnp.ones((1, 2))).tolist()
      [[0.0, 0.0, 0.0]]
    """
    sums = jnp.matmul(inputs, ffn["w_in"].T.astype(inputs.dtype))
    sums = sums + ffn["b_in"].astype(inputs.dtype) if "b_in" in ffn else sums
    return ACTIVATIONS[config.activation](sums)


def oracle_scores(values: jax.Array, block_size: int = 1) -> jax.Array:
    """Scores of the neurons that give most, (*b, f), or of the blocks that do, (*b, blocks).

    Args:
      values: (*b, f) activations.
      block_size: neurons per block; a block scores the mean of its neurons.

    Example:
      >>> oracle_scores(jnp.asarray([1.0, -2.0, 0.5, 1.0])).tolist()
      [1.0, 2.0, 0.5, 1.0]
      >>> oracle_scores(jnp.asarray([1.0, -2.0, 0.5, 1.0]), 2).tolist()
      [1.5, 0.75]

    Source: specs/sprout.md section 3.1 (absolute activations).
    """
    sizes = jnp.abs(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
    return sizes if block_size == 1 else pooled(sizes, block_size)


def selecting(selection: jax.Array, key: jax.Array) -> Any:
    """A context within which every router scores as ``selection`` says.

    Args:
      selection: () place in `SELECTIONS`; traced, so that one compiled program serves all three.
      key: of the random scores; every router draws its own.

    Example:
      >>> router = Router(SproutFFNConfig(d_model=2, d_ff=4))
      >>> w_in, x = 10 * jnp.arange(8.0).reshape(4, 2), jnp.ones((1, 2))
      >>> params = jax.jit(router.init)(jax.random.key(0), x, w_in)
      >>> with selecting(jnp.asarray(1), jax.random.key(0)):
      ...     router.apply(params, x, w_in).tolist()
      [[10.0, 50.0, 90.0, 130.0]]
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        router = context.module
        if not isinstance(router, Router) or context.method_name != "__call__":
            return call(*args, **kwargs)
        learned, (inputs, w_in) = call(*args, **kwargs), args
        config, ffn = router.config, {"w_in": w_in}
        if config.use_bias:
            assert isinstance(router.parent, nn.Module)
            ffn["b_in"] = router.parent.get_variable("params", "b_in")
        blocks = config.selects_blocks or kwargs.get("blocks", False)
        best = oracle_scores(activations(config, ffn, inputs), config.block_size if blocks else 1)
        own = jax.random.fold_in(key, zlib.crc32("/".join(router.path).encode()))
        drawn = jax.random.uniform(own, learned.shape, learned.dtype)
        return jnp.select([selection == 0, selection == 1], [learned, best.astype(learned.dtype)], drawn)

    return nn.intercept_methods(intercept)
