"""Scores of neurons, or of blocks of neurons, for each token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.sprout.config import SproutConfig, SproutFFNConfig
from sparsejax.models.sprout.norm import layer_norm
from sparsejax.ops.flat_matmul import wide_matmul

Config = TypeVar("Config", SproutConfig, SproutFFNConfig)

_POOLED_FIRST = 16
"""Tokens from which pooling a router's matrix is less work than pooling their scores."""

_normal = nn.initializers.normal(0.02)  # of every published router matrix


class Router(nn.Module):
    """Scores (*b, f) of neurons, or (*b, blocks) of blocks, in float32 at least.

    Attributes:
      config: kind and sizes.
      dtype: of the products' factors; None is that of the arguments.

    Source: specs/sprout.md sections 1 and 3; "low_rank" and the routers of blocks are of this library: a
    full-rank router costs as much as the input weights, so that no selection could be worth more than a
    factor of two.
    """

    config: SproutFFNConfig
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, w_in: jax.Array, *, blocks: bool = False) -> jax.Array:
        """Scores.

        Args:
          inputs: (*b, d) what the FFN reads.
          w_in: (f, d) its input weights, where the first parameters may come from.
          blocks: score blocks of ``config.block_size`` neurons by the mean over their neurons; routers of
            blocks do so in any case.
        """
        config, down = self.config, None
        if config.router == "low_rank":
            start = self._started(partial(low_rank_basis, w_in, config.router_rank))
            down = self.param("down_kernel", start, (config.d_model, config.router_rank))
            inputs = wide_matmul(inputs, down, self.dtype)
        if config.router in ("mlp", "mlp_block"):
            kernel = self.param("hidden_kernel", _normal, (config.d_model, config.d_model))
            normed = layer_norm("norm", self.dtype)(inputs)
            inputs = nn.gelu(wide_matmul(normed, kernel, self.dtype), approximate=False)
        width = config.num_blocks if config.selects_blocks else config.d_ff
        start = self._started(partial(_columns, config, w_in, down))
        kernel = self.param("kernel", start, (inputs.shape[-1], width))
        if not blocks or config.selects_blocks:
            return wide_matmul(inputs, kernel, self.dtype)
        if inputs.size < _POOLED_FIRST * inputs.shape[-1]:
            return pooled(wide_matmul(inputs, kernel, self.dtype), config.block_size)
        return wide_matmul(inputs, pooled(kernel, config.block_size), self.dtype)

    def _started(self, from_weights: Callable[[], jax.Array]) -> nn.initializers.Initializer:
        """The initial values that the config asks for; made from the input weights only when called."""
        if self.config.router_init == "random":
            return _normal

        def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            del key, shape
            return from_weights().astype(dtype)

        return init


def _columns(config: SproutFFNConfig, w_in: jax.Array, down: jax.Array | None) -> jax.Array:
    """What the router's last matrix is of input weights (f, d), seen through its first if there is one."""
    columns = w_in.T if down is None else down.T @ w_in.T
    return pooled(columns, config.block_size) if config.selects_blocks else columns


def pooled(columns: jax.Array, block_size: int) -> jax.Array:
    """Means (*b, blocks) over blocks of columns (*b, f); the last block may be shorter.

    Example:
      >>> pooled(jnp.asarray([1.0, 3.0, 5.0]), 2).tolist()
      [2.0, 5.0]
    """
    missing = -columns.shape[-1] % block_size
    padded = jnp.pad(columns, [(0, 0)] * (columns.ndim - 1) + [(0, missing)])
    blocks = padded.shape[-1] // block_size
    sums = padded.reshape(*columns.shape[:-1], blocks, block_size).sum(axis=-1)
    sizes = jnp.full(sums.shape[-1], block_size, sums.dtype).at[-1].add(-missing)
    return sums / sizes


def low_rank_basis(w_in: jax.Array, rank: int) -> jax.Array:
    """The ``rank`` orthonormal directions (d, r) that hold most of the rows of input weights (f, d).

    ``basis @ basis.T @ w_in.T`` is the best approximation of the weights of this rank, as their singular
    value decomposition gives it. Beyond d, directions are zero.

    Example:
      >>> low_rank_basis(jnp.diag(jnp.asarray([1.0, 3.0, 2.0])), 2).shape
      (3, 2)
    """
    _, directions = jnp.linalg.eigh(w_in.T @ w_in)  # ascending; far cheaper than the decomposition of w_in
    basis = directions[:, ::-1][:, :rank]
    return jnp.pad(basis, ((0, 0), (0, rank - basis.shape[1])))


def with_block_router(config: Config, params: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The network whose routers score blocks, as ``path="block"`` makes them of routers of neurons.

    That path pools their kernels, or the scores of a few tokens, at every call. Scores are linear in the
    router's last matrix, so that the mean over a block's neurons is a product with the mean of their columns:
    a matrix of d_ff / block_size columns, all that is read when a token is decoded. A low-rank router becomes
    one matrix.

    Args:
      config: of a model, or of an FFN, whose routers score neurons.
      params: its parameters.

    Returns:
      config and parameters of the same function, but for rounding, as ``path="block"`` of the given one.

    Raises:
      ValueError: the router scores blocks already, or neurons do not divide into blocks.

    Example:
      >>> config = SproutFFNConfig(d_model=4, d_ff=8, block_size=2)
      >>> params = {"w_in": jnp.ones((8, 4)), "router": {"kernel": jnp.ones((4, 8))}}
      >>> with_block_router(config, params)[1]["router"]["kernel"].shape
      (4, 4)
    """
    ffn = config.ffn if isinstance(config, SproutConfig) else config
    if ffn.selects_blocks:
        raise ValueError(f"a router of kind {ffn.router!r} scores blocks already")
    changed = dataclasses.replace(config, router="mlp_block" if ffn.router == "mlp" else "block")
    if isinstance(config, SproutFFNConfig):
        return changed, _with_pooled_router(ffn, params)
    layers = {f"layer_{number}": params[f"layer_{number}"] for number in range(config.n_layers)}
    moved = {name: {**layer, "ffn": _with_pooled_router(ffn, layer["ffn"])} for name, layer in layers.items()}
    return changed, {**params, **moved}


def _with_pooled_router(config: SproutFFNConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    router = dict(params["router"])
    router["kernel"] = pooled(router["kernel"], config.block_size)
    if config.router == "low_rank":
        router["kernel"] = router.pop("down_kernel") @ router["kernel"]
    return {**params, "router": router}
