"""Bidirectional attention in which padded tokens are seen by nobody."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.ops.flat_matmul import flat_dot_general


def padding_mask(
    key_padding_mask: jax.Array | None = None, attention_mask: jax.Array | None = None
) -> jax.Array | None:
    """Which tokens (b, t) attention may see: True is visible; None where all are.

    Args:
      key_padding_mask: (b, t) bool, True = ignore, as torch's attention takes it.
      attention_mask: (b, t) bool or integer, 1 = keep, as Hugging Face tokenizers make it.

    Example:
      >>> padding_mask(jnp.asarray([[False, True]]), jnp.asarray([[1, 1]])).tolist()
      [[True, False]]
    """
    visible = [] if key_padding_mask is None else [~key_padding_mask]
    visible += [] if attention_mask is None else [attention_mask != 0]
    if not visible:
        return None
    return visible[0] if len(visible) == 1 else visible[0] & visible[1]


def attention_weights(
    queries: jax.Array, keys: jax.Array, visible: jax.Array | None, *, num_heads: int
) -> jax.Array:
    """Softmax weights in float32 at least.

    Args:
      queries: (b, t, d).
      keys: (b, t, d).
      visible: (b, t) of the keys; None is all.
      num_heads: d is cut into so many heads, each scaled by 1 / sqrt(d / num_heads).

    Returns:
      (b, h, t, t); all zeros where a sequence has no visible key.
    """
    q, k = (_heads(array, num_heads) for array in (queries, keys))
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=wide) * (q.shape[-1] ** -0.5)
    if visible is None:
        return jax.nn.softmax(scores, axis=-1)
    # The least number rather than -inf: rows in which no key is visible then have finite gradients.
    scores = jnp.where(visible[:, None, None, :], scores, jnp.finfo(wide).min)
    return jax.nn.softmax(scores, axis=-1) * visible.any(axis=-1)[:, None, None, None]


def weighted_values(weights: jax.Array, values: jax.Array) -> jax.Array:
    """(b, t, d) from weights (b, h, t, t) and values (b, t, d)."""
    v = _heads(values, weights.shape[1])
    return jnp.einsum("bhqk,bkhc->bqhc", weights.astype(v.dtype), v).reshape(values.shape)


class SelfAttention(nn.Module):
    """Multi-head attention with dropout on its weights, as torch's ``MultiheadAttention``.

    Attributes:
      num_heads: of the attention.
      dropout: of the weights, in training.
      dtype: of the computation; None is that of the parameters.
    """

    num_heads: int
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, visible: jax.Array | None, *, train: bool = False) -> jax.Array:
        """(b, t, d) from (b, t, d)."""
        width = inputs.shape[-1]
        # Torch draws the three input matrices as one of (3 d, d).
        stacked = nn.initializers.variance_scaling(0.5, "fan_in", "uniform")
        queries, keys, values = (
            self._dense(width, name, stacked)(inputs) for name in ("query", "key", "value")
        )
        weights = attention_weights(queries, keys, visible, num_heads=self.num_heads)
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train)
        out_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return self._dense(width, "out", out_init)(weighted_values(weights, values))

    def _dense(self, width: int, name: str, kernel_init: nn.initializers.Initializer) -> nn.Dense:
        return nn.Dense(
            width, dtype=self.dtype, kernel_init=kernel_init, dot_general=flat_dot_general, name=name
        )


def _heads(array: jax.Array, num_heads: int) -> jax.Array:
    return array.reshape(*array.shape[:2], num_heads, array.shape[2] // num_heads)
