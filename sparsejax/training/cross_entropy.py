"""Cross entropy over a large vocabulary that never holds the logits of all tokens at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.ops.token_ids import IGNORED
from sparsejax.typing import HeadKernel, PerToken, Scalar, Tokens, TokenStates

CHUNK_TOKENS = 1024
"""Tokens whose logits are held at a time."""


class TokenLoss(NamedTuple):
    """A sum over tokens, so that means over batches of different sizes can weigh every token alike.

    Attributes:
      total: () sum of the weighted losses in nats, float32 (float64 for float64 inputs).
      weight: () sum of the weights of the tokens.
      metrics: further sums over tokens by name, to be told beside the loss; None is none.
    """

    total: Scalar
    weight: Scalar
    metrics: Mapping[str, Scalar] | None = None

    @property
    def mean(self) -> Scalar:
        """Loss per token; 0 where none counts."""
        return self.total / jnp.maximum(self.weight, 1)


def chunked_cross_entropy(
    hidden: TokenStates,
    kernel: HeadKernel,
    targets: Tokens,
    weights: PerToken | None = None,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
) -> TokenLoss:
    """Cross entropy of ``softmax(hidden @ kernel)``, a slice of the time axis at a time.

    Logits are made for one slice, reduced, and made again in the backward pass: memory grows with
    ``chunk_tokens * v`` instead of with all tokens. Leading axes are never cut, so that a batch may be spread
    over devices. The softmax is taken in float32 whatever the type of ``hidden``.

    Args:
      hidden: (*b, t, d) what the vocabulary head reads; the product is computed in its type.
      kernel: (d, v) of the head.
      targets: (*b, t) token ids; `IGNORED` ones do not count.
      weights: (*b, t) of the tokens; 1 if not given.
      chunk_tokens: tokens per slice, over all leading axes; at least one time step is taken.

    Returns:
      `TokenLoss`.

    Raises:
      ValueError: ``chunk_tokens`` is below 1.

    Example:
      >>> loss = chunked_cross_entropy(jnp.zeros((2, 3, 4)), jnp.ones((4, 8)), jnp.zeros((2, 3), int))
      >>> float(loss.weight), round(float(loss.mean), 4)
      (6.0, 2.0794)
    """
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, not {chunk_tokens}")
    *batch, steps, _ = hidden.shape
    counted = targets != IGNORED
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    weights = counted.astype(dtype) if weights is None else jnp.where(counted, weights, 0).astype(dtype)
    length = min(max(1, chunk_tokens // max(1, math.prod(batch))), max(1, steps))
    slices = jax.tree.map(
        lambda leaf: _slices(leaf, len(batch), length), (hidden, jnp.where(counted, targets, 0), weights)
    )

    @jax.checkpoint
    def add(total: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        return total + _weighted_loss(*part, kernel=kernel), None

    total, _ = jax.lax.scan(add, jnp.zeros((), dtype), slices)
    return TokenLoss(total, weights.sum())


def _weighted_loss(
    hidden: jax.Array, targets: jax.Array, weights: jax.Array, *, kernel: jax.Array
) -> jax.Array:
    logits = jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=weights.dtype)
    of_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - of_target))


def _slices(leaf: jax.Array, axis: int, length: int) -> jax.Array:
    """Cut the time axis into slices of one length, the slices first; zeros, of weight 0, fill the last."""
    count = -(-leaf.shape[axis] // length)
    padding = [(0, 0)] * leaf.ndim
    padding[axis] = (0, count * length - leaf.shape[axis])
    shape = (*leaf.shape[:axis], count, length, *leaf.shape[axis + 1 :])
    return jnp.moveaxis(jnp.pad(leaf, padding).reshape(shape), axis, 0)
