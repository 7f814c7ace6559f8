"""Cross entropy of the few tokens that count, as in masked language modelling: no logits of the others."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.cross_entropy import CHUNK_TOKENS, TokenLoss
from sparsejax.typing import Bias, HeadKernel, Tokens, TokenStates

ACCURACY = "accuracy"
"""Metric: the part of the counted tokens whose target has the largest logit."""


def expected_count(tokens: int, chance: float) -> int:
    """Room for the tokens that count where each does with a given chance: six standard deviations above.

    Args:
      tokens: of a batch.
      chance: of each to count.

    Example:
      >>> expected_count(4096, 0.15)
      752
    """
    high = tokens * chance + 6 * math.sqrt(tokens * chance * (1 - chance))
    return min(tokens, 8 * math.ceil(high / 8))


def counted_cross_entropy(
    hidden: TokenStates,
    kernel: HeadKernel,
    bias: Bias,
    targets: Tokens,
    *,
    room: int,
    chunk_tokens: int = CHUNK_TOKENS,
) -> TokenLoss:
    """Cross entropy of ``softmax(hidden @ kernel + bias)`` at the tokens that count, gathered into few rows.

    The gathered rows are ``room``, so that shapes are static; should more tokens count, the rest is taken by
    a second pass that is skipped otherwise: none is ever left out.

    Args:
      hidden: (*b, t, d) what the vocabulary head reads; the product is computed in its type.
      kernel: (d, v) of the head.
      bias: (v,) of the head.
      targets: (*b, t) token ids; those that are `IGNORED` do not count.
      room: tokens of the first pass; see `expected_count`.
      chunk_tokens: tokens whose logits are held at a time.

    Returns:
      `TokenLoss`, with the metric `ACCURACY`.

    Raises:
      ValueError: there is no room.

    Example:
      >>> targets = jnp.asarray([[3, IGNORED, 5]])
      >>> loss = counted_cross_entropy(jnp.ones((1, 3, 4)), jnp.ones((4, 8)), jnp.zeros(8), targets, room=1)
      >>> float(loss.weight), round(float(loss.mean), 4)
      (2.0, 2.0794)
    """
    if room < 1:
        raise ValueError(f"room must be at least 1, not {room}")
    flat, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    counted = targets != IGNORED
    count, room = counted.sum(), min(room, len(targets))
    places = jnp.nonzero(counted, size=len(targets), fill_value=len(targets))[0]
    targets = jnp.where(counted, targets, 0)

    def passed(places: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _sums(flat, (kernel, bias), targets, places, min(chunk_tokens, len(places)))

    losses, correct = passed(places[:room])
    if room < len(targets):
        rest = jax.lax.cond(count > room, passed, lambda _: (jnp.zeros_like(losses),) * 2, places[room:])
        losses, correct = losses + rest[0], correct + rest[1]
    return TokenLoss(losses, count.astype(losses.dtype), {ACCURACY: correct})


def _sums(
    flat: jax.Array, head: tuple[jax.Array, jax.Array], targets: jax.Array, places: jax.Array, length: int
) -> tuple[jax.Array, jax.Array]:
    """Losses and right guesses summed over some places; those beyond the last token count nothing."""
    dtype = jnp.promote_types(flat.dtype, jnp.float32)
    missing = -len(places) % length
    slices = jnp.pad(places, (0, missing), constant_values=len(targets)).reshape(-1, length)

    @jax.checkpoint
    def add(sums: jax.Array, of: jax.Array) -> tuple[jax.Array, None]:
        rows = flat.at[of].get(mode="fill", fill_value=0)
        of_slice = _guesses(rows, head, targets.at[of].get(mode="clip"), dtype)
        return sums + jnp.where(of < len(targets), jnp.stack(of_slice), 0).sum(axis=1), None

    losses, correct = jax.lax.scan(add, jnp.zeros(2, dtype), slices)[0]
    return losses, correct


def _guesses(
    rows: jax.Array, head: tuple[jax.Array, jax.Array], targets: jax.Array, dtype: jax.typing.DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Loss of each row, and 1 where its target is the first of the largest logits."""
    kernel, bias = head
    logits = jnp.matmul(rows, kernel.astype(rows.dtype), preferred_element_type=dtype) + bias.astype(dtype)
    of_target = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    # Comparisons and sums instead of argmax, which XLA does not vectorise on CPUs.
    before = jnp.arange(logits.shape[-1]) < targets[:, None]
    better = ((logits > of_target) | ((logits == of_target) & before)).any(axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - of_target[:, 0]
    return losses, (~better).astype(losses.dtype)
