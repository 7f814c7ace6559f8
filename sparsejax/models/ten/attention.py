"""Sliding attention: a token sees itself and the window before it, in memory linear in the length."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.ten.segments import Segments
from sparsejax.models.ten.state import AttentionCache

_LEAST_BLOCK = 64
"""Queries per block at least: smaller blocks read every key more often and fill no matrix unit."""
_NOBODY, _PADDING = -1, -2  # documents that no token is of


def sliding_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    num_heads: int,
    window: int,
    cache: AttentionCache | None = None,
    segments: Segments | None = None,
) -> tuple[jax.Array, AttentionCache]:
    """Softmax attention over the last ``window`` tokens and the present one.

    Queries are taken in blocks, each beside the keys that any of them may see, so that scores need
    ``t * (block + window)`` numbers per head and not ``t * t``.

    Args:
      queries: (b, t, d).
      keys: (b, t, d).
      values: (b, t, d).
      num_heads: d is cut into so many heads, each scaled by 1 / sqrt(d / num_heads).
      window: tokens before the present one that it sees.
      cache: keys and values before these; none are visible if None.
      segments: documents, if there are several per row.

    Returns:
      outputs (b, t, d) before the output projection, and the cache for the next call.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> sliding_attention(0 * x, 0 * x, x, num_heads=1, window=1)[0].ravel().tolist()
      [0.0, 0.5, 1.5, 2.5]

    Source: specs/ten.md section 2, family pro (key j is visible iff i - window <= j <= i).
    """
    batch, steps, dim = queries.shape
    if cache is None:
        nothing = jnp.zeros((batch, window, dim), keys.dtype)
        cache = AttentionCache(nothing, nothing, jnp.zeros((batch, window), bool))
    number = jnp.zeros((batch, steps), jnp.int32) if segments is None else segments.number
    all_keys = jnp.concatenate([cache.keys.astype(keys.dtype), keys], axis=1)
    all_values = jnp.concatenate([cache.values.astype(values.dtype), values], axis=1)
    # Cached tokens belong to document 0, the one that goes on.
    owner = jnp.concatenate([jnp.where(cache.visible, 0, _NOBODY), number], axis=1)
    block = min(steps, max(window, _LEAST_BLOCK))
    outputs = _in_blocks(
        (queries, number), (all_keys, all_values, owner), block=block, window=window, num_heads=num_heads
    )
    newest = (
        all_keys[:, steps:],
        all_values[:, steps:],
        owner[:, steps:] == number[:, -1:],
    )
    return outputs, AttentionCache(*newest)


def _in_blocks(
    asked: tuple[jax.Array, jax.Array],
    seen: tuple[jax.Array, jax.Array, jax.Array],
    *,
    block: int,
    window: int,
    num_heads: int,
) -> jax.Array:
    (queries, number), (keys, values, owner) = asked, seen
    batch, steps, dim = queries.shape
    blocks = -(-steps // block)
    missing = blocks * block - steps
    queries, keys, values = (_padded(array, missing) for array in (queries, keys, values))
    # Padding is a document of its own: a query that saw nothing would divide by zero.
    number, owner = (_padded(array, missing, fill=_PADDING) for array in (number, owner))
    visible_to = jnp.arange(blocks)[:, None] * block + jnp.arange(block + window)
    heads = (num_heads, dim // num_heads)
    q = queries.reshape(batch, blocks, block, *heads)
    k, v = (array[:, visible_to].reshape(batch, blocks, block + window, *heads) for array in (keys, values))
    scores = jnp.einsum("bnqhc,bnkhc->bnhqk", q, k, preferred_element_type=_wide(queries.dtype))
    ahead = jnp.arange(block + window) - jnp.arange(block)[:, None]  # 0 is the oldest visible key
    same = owner[:, visible_to][:, :, None, :] == number.reshape(batch, blocks, block, 1)
    mask = ((ahead >= 0) & (ahead <= window) & same)[:, :, None]
    weights = jax.nn.softmax(scores * (heads[1] ** -0.5), axis=-1, where=mask).astype(values.dtype)
    outputs = jnp.einsum("bnhqk,bnkhc->bnqhc", weights, v)
    return outputs.reshape(batch, blocks * block, dim)[:, :steps]


def _padded(array: jax.Array, missing: int, fill: int = 0) -> jax.Array:
    return jnp.pad(array, ((0, 0), (0, missing)) + ((0, 0),) * (array.ndim - 2), constant_values=fill)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)
