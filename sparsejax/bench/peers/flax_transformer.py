"""A causal Transformer in flax, for what it learns rather than for its speed: pre-norm, learned positions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class FlaxTransformer(nn.Module):
    """Logits (b, t, v) of tokens (b, t): GELU, a tied head, embeddings times the root of the width.

    Tables and matrices start with variance 1 / inputs. Without that factor, or with tables N(0, 0.02) beside
    such matrices, what the first layer adds hides the tokens from the second, and recall is not learnt.

    Attributes:
      vocab_size: rows of the token table.
      dim: width.
      n_layers: blocks.
      n_heads: of the attention.
      length: rows of the position table.
      multiplier: hidden width of the feed-forward part over ``dim``.

    Source: Vaswani et al. 2017, with the norms before each part.
    """

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    length: int
    multiplier: int = 4

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits at every position, each from the tokens up to it."""
        init = nn.initializers.normal(self.dim**-0.5)
        table = nn.Embed(self.vocab_size, self.dim, embedding_init=init)
        positions = nn.Embed(self.length, self.dim, embedding_init=init)
        hidden = self.dim**0.5 * (table(tokens) + positions(jnp.arange(tokens.shape[1])))
        causal = nn.make_causal_mask(tokens)
        for _ in range(self.n_layers):
            attention = nn.MultiHeadDotProductAttention(self.n_heads)
            hidden = hidden + attention(nn.LayerNorm()(hidden), mask=causal)
            fed = nn.Dense(self.multiplier * self.dim)(nn.LayerNorm()(hidden))
            hidden = hidden + nn.Dense(self.dim)(nn.gelu(fed))
        return table.attend(nn.LayerNorm()(hidden))
