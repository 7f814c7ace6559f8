"""Where documents begin in a packed batch, and how far every token is from the beginning of its own."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Segments(NamedTuple):
    """Documents of a batch.

    Attributes:
      starts: (b, t) whether a document begins here.
      number: (b, t) int32 documents begun in this call so far; 0 is the one that goes on from before.
      age: (b, t) int32 tokens since the beginning; in document 0, since the call.
    """

    starts: jax.Array
    number: jax.Array
    age: jax.Array


def find_segments(segment_ids: jax.Array, *, continued: bool) -> Segments:
    """Documents from their ids.

    Args:
      segment_ids: (b, t) integers; a document begins where the id differs from the one before.
      continued: whether the first tokens go on with what a carried state has read.

    Example:
      >>> found = find_segments(jnp.array([[7, 7, 8, 8]]), continued=False)
      >>> found.age.tolist(), found.number.tolist()
      ([[0, 1, 0, 1]], [[1, 1, 2, 2]])
    """
    first = jnp.full((segment_ids.shape[0], 1), not continued)
    starts = jnp.concatenate([first, segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1)
    steps = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    begun = jax.lax.cummax(jnp.where(starts, steps, 0), axis=1)
    return Segments(starts, jnp.cumsum(starts, axis=1, dtype=jnp.int32), steps - begun)


def positions_of(segments: Segments | None, before: jax.Array | None, shape: tuple[int, int]) -> jax.Array:
    """Position of every token in its document: (b, t) int32, or (1, t) where all rows are alike.

    Args:
      segments: documents; None for one per row.
      before: (b,) tokens of the first document that were read earlier; None for none.
      shape: (b, t).
    """
    if segments is None:
        steps = jnp.arange(shape[1], dtype=jnp.int32)[None]
        return steps if before is None else before[:, None] + steps
    if before is None:
        return segments.age
    return segments.age + jnp.where(segments.number == 0, before[:, None], 0)
