"""Causal attention with shared key heads, over the tokens of a call or a cache of those before."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def causal_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    *,
    window: int | None = None,
) -> jax.Array:
    """What each token reads from itself and those before it.

    Args:
      queries: (b, t, h, c).
      keys: (b, g, s, c) of slots 0 to s - 1, the position of each being its number; query head j reads
        number j // (h / g).
      values: (b, g, s, c).
      positions: (b, t) of the queries; slots beyond are not seen, whatever they hold, if it is finite.
      window: slots seen at most, the own one included; None for all.

    Returns:
      (b, t, h * c) in the dtype of the queries; scores and their softmax are float32 at least.

    Example:
      >>> ones = jnp.ones((1, 2, 3, 4))
      >>> causal_attention(jnp.ones((1, 3, 4, 4)), ones, ones, jnp.arange(3)[None]).shape
      (1, 3, 16)

    Source: Ainslie et al. 2023, GQA; specs/sparse_inference.md section 13.
    """
    batch, steps, heads, channels = queries.shape
    groups, slots = keys.shape[1:3]
    wide = jnp.promote_types(queries.dtype, jnp.float32)
    # Query heads that share keys become rows of one product.
    sharing = heads // groups
    rows = queries.reshape(batch, steps, groups, sharing, channels).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, groups, sharing * steps, channels)
    scores = jnp.einsum("bgqc,bgsc->bgqs", rows, keys, preferred_element_type=wide) * channels**-0.5
    distance = positions[:, :, None] - jnp.arange(slots)
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    scores = scores.reshape(batch, groups, sharing, steps, slots)
    # The least number rather than -inf: a row that sees no slot stays finite.
    scores = jnp.where(visible[:, None, None], scores, jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).reshape(*rows.shape[:-1], slots).astype(queries.dtype)
    read = jnp.einsum("bgqs,bgsc->bgqc", weights, values, preferred_element_type=wide)
    read = read.reshape(batch, groups, sharing, steps, channels).transpose(0, 3, 1, 2, 4)
    return read.reshape(batch, steps, heads * channels).astype(queries.dtype)


def write_slots(cache: jax.Array, new: jax.Array, starts: jax.Array) -> jax.Array:
    """The cache with new slots in it, from each row's own start on.

    Args:
      cache: (b, g, s, c).
      new: (b, g, t, c); t slots must fit behind each start.
      starts: (b,).

    Returns:
      (b, g, s, c) in the dtype of the cache; in place where its memory may be reused.

    Example:
      >>> write_slots(jnp.zeros((2, 1, 3, 1)), jnp.ones((2, 1, 1, 1)), jnp.array([0, 2]))[..., 0].tolist()
      [[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]
    """
    if len(cache) == 0:
        return cache
    new = new.astype(cache.dtype)

    def one(row: int | jax.Array, written: jax.Array) -> jax.Array:
        own = jax.lax.dynamic_slice_in_dim(new, row, 1)
        return jax.lax.dynamic_update_slice(written, own, (row, 0, starts[row], 0))

    # A loop of copies: as one scatter the same takes XLA an instruction per number.
    return one(0, cache) if len(cache) == 1 else jax.lax.fori_loop(0, len(cache), one, cache)
