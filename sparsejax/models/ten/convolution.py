"""The short causal convolution, depthwise over what drives the eigenstates."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.ten.segments import Segments


def short_convolution(
    inputs: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    tail: jax.Array | None = None,
    segments: Segments | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Each channel's weighted sum of its latest values; documents do not see each other.

    Args:
      inputs: (b, t, c).
      kernel: (taps, c); the last tap weighs the present.
      bias: (c,).
      tail: (b, taps - 1, c) inputs before these; zeros if None.
      segments: documents, if there are several per row.

    Returns:
      outputs (b, t, c), and the tail for the next call.

    Example:
      >>> outputs, tail = short_convolution(jnp.ones((1, 3, 1)), jnp.ones((2, 1)), jnp.zeros(1))
      >>> outputs.ravel().tolist(), tail.ravel().tolist()
      ([1.0, 2.0, 2.0], [1.0])

    Source: specs/ten.md section 2, family ssd.
    """
    batch, steps, channels = inputs.shape
    taps = kernel.shape[0]
    if tail is None:
        tail = jnp.zeros((batch, taps - 1, channels), inputs.dtype)
    history = jnp.concatenate([tail.astype(inputs.dtype), inputs], axis=1)
    outputs = inputs * kernel[-1] + bias
    for shift in range(1, taps):
        earlier = jax.lax.slice_in_dim(history, taps - 1 - shift, taps - 1 - shift + steps, axis=1)
        outputs += _of_this_document(earlier, segments, shift) * kernel[-1 - shift]
    return outputs, _next_tail(history, segments, taps)


def _of_this_document(earlier: jax.Array, segments: Segments | None, shift: int) -> jax.Array:
    if segments is None:
        return earlier
    same = (segments.age >= shift) | (segments.number == 0)
    return jnp.where(same[..., None], earlier, 0)


def _next_tail(history: jax.Array, segments: Segments | None, taps: int) -> jax.Array:
    tail = history[:, history.shape[1] - (taps - 1) :]
    if segments is None:
        return tail
    back = jnp.arange(taps - 2, -1, -1)
    kept = (segments.age[:, -1:] >= back) | (segments.number[:, -1:] == 0)
    return jnp.where(kept[..., None], tail, 0)
