"""The masked language model: embeddings, layers of attention and sparse FFNs, the vocabulary head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.checkpoint.accepted_names import check_dropout_key
from sparsejax.models.sprout.attention import SelfAttention, padding_mask
from sparsejax.models.sprout.config import Mixer, Path, SproutConfig
from sparsejax.models.sprout.ffn import SproutFFN, TopK, per_layer
from sparsejax.models.sprout.inputs import check_masks, check_tokens
from sparsejax.models.sprout.norm import layer_norm
from sparsejax.ops.flat_matmul import wide_matmul

_STD = 0.02


@flax.struct.dataclass
class RouterStatistics:
    """How a call's routers chose.

    Attributes:
      usage: (layers, f) part of the tokens that used each neuron; 1 in layers that computed all.
    """

    usage: jax.Array


@flax.struct.dataclass
class SproutOutput:
    """What the network gives.

    Attributes:
      logits: (b, t, v), float32 at least.
      aux: router statistics.
    """

    logits: jax.Array
    aux: RouterStatistics


class LayerOptions(NamedTuple):
    """What a call says to every layer.

    Attributes:
      top_k: neurons per token, where that is static.
      path: see `SproutFFN.routed`; so are the rest.
      mixer: see `SproutFFN.routed`.
      train: see `SproutFFN.routed`.
      straight_through: see `SproutFFN.routed`.
    """

    top_k: Any
    path: Path
    mixer: Mixer
    train: bool
    straight_through: bool


class SproutLayer(nn.Module):
    """One pre-norm layer; the residual stream (b, t, d), and the usage (f,) of its neurons."""

    config: SproutConfig
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, hidden: jax.Array, visible: jax.Array | None, traced: jax.Array | None, options: LayerOptions
    ) -> tuple[jax.Array, jax.Array]:
        """From the residual stream, the visible keys (b, t), a traced ``top_k`` if there is one, and options.

        All but ``options`` may be traced; a static ``top_k`` is one of them, so that it stays static where
        the layer is computed again for its gradients.
        """
        config = self.config
        attention = SelfAttention(config.n_heads, config.dropout, dtype=self.dtype, name="attention")
        drop = nn.Dropout(config.dropout)
        train = options.train
        attended = attention(layer_norm("norm1", self.dtype)(hidden), visible, train=train)
        self.sow("intermediates", "attention_out", attended)
        hidden = hidden + drop(attended, deterministic=not train)
        fed, usage = SproutFFN(config.ffn, dtype=self.dtype, name="ffn").routed(
            layer_norm("norm2", self.dtype)(hidden),
            top_k=options.top_k if traced is None else traced,
            path=options.path,
            mixer=options.mixer,
            train=train,
            straight_through=options.straight_through,
        )
        self.sow("intermediates", "ffn_out", fed)
        hidden = hidden + drop(fed, deterministic=not train)
        self.sow("intermediates", "out", hidden)
        return hidden, usage


class SproutLM(nn.Module):
    """A masked language model whose layers compute each token with ``top_k`` neurons.

    Attributes:
      config: sizes and kind.
      dtype: of the computation; None is that of the parameters.

    Example:
      >>> model = SproutLM(SproutConfig(vocab_size=50, d_model=16, d_ff=32, n_heads=2, n_layers=1, max_len=8))
      >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), int))
      >>> apply = jax.jit(model.apply, static_argnames="top_k")
      >>> apply(params, jnp.zeros((2, 5), int), top_k=8).logits.shape
      (2, 5, 50)

    Source: specs/sprout.md section 1.3.
    """

    config: SproutConfig
    dtype: jax.typing.DTypeLike | None = None

    def setup(self):
        """``token_embedding``, ``position_embedding``, ``layer_0`` and so on, ``final_norm``, ``head``."""
        config, normal = self.config, nn.initializers.normal(_STD)
        self.token_embedding = nn.Embed(
            config.vocab_size, config.d_model, dtype=self.dtype, embedding_init=normal
        )
        self.position_embedding = nn.Embed(
            config.max_len, config.d_model, dtype=self.dtype, embedding_init=normal
        )
        kind = nn.remat(SproutLayer, static_argnums=(3, 4)) if config.gradient_checkpointing else SproutLayer
        self.layer = [kind(config, dtype=self.dtype) for _ in range(config.n_layers)]
        self.final_norm = layer_norm("final_norm", self.dtype)
        self.head = Head(config)

    def __call__(self, tokens: jax.Array, **options: Any) -> SproutOutput:
        """Logits of the token at every position; options as in `hidden`."""
        hidden, usage = self._layers(tokens, **options)
        kernel, bias = self.head()
        logits = wide_matmul(hidden, kernel, self.dtype)
        return SproutOutput(logits + bias.astype(logits.dtype), RouterStatistics(usage))

    def hidden(self, tokens: jax.Array, **options: Any) -> jax.Array:
        """The residual stream (b, t, d) after the final norm, before the vocabulary head.

        Args:
          tokens: (b, t) ids.
          options: top_k: neurons per token: None, one number, one per layer, or a traced integer array () or
            (layers,); see `SproutFFN.routed`, also for path, mixer, train (whose dropout draws from
            ``rngs={"dropout": key}``) and straight_through.
            key_padding_mask: (b, t) bool, True = ignore. attention_mask: (b, t) bool or integer, 1 = keep.
        """
        return self._layers(tokens, **options)[0]

    def _layers(
        self,
        tokens: jax.Array,
        *,
        top_k: TopK | Sequence[TopK] = None,
        key_padding_mask: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        path: Path = "auto",
        mixer: Mixer = "published",
        train: bool = False,
        straight_through: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """The residual stream after the final norm, and the usage (layers, f) of neurons."""
        check_tokens(self.config, tokens)
        check_masks(tokens.shape, key_padding_mask=key_padding_mask, attention_mask=attention_mask)
        check_dropout_key(train and self.config.dropout, self.has_rng("dropout"))
        visible = padding_mask(key_padding_mask, attention_mask)
        hidden = self.token_embedding(tokens) + self.position_embedding(jnp.arange(tokens.shape[1]))
        usage = []
        for layer, count in zip(self.layer, per_layer(top_k, self.config.n_layers), strict=True):
            traced = count if isinstance(count, jax.Array) else None
            static = count if traced is None else None
            options = LayerOptions(static, path, mixer, train, straight_through)
            hidden, of_layer = layer(hidden, visible, traced, options)
            usage.append(of_layer)
        return self.final_norm(hidden), jnp.stack(usage)


class Head(nn.Module):
    """The vocabulary head: kernel (d, v) and bias (v,)."""

    config: SproutConfig

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """The two parameters."""
        shape = (self.config.d_model, self.config.vocab_size)
        kernel = self.param("kernel", nn.initializers.normal(_STD), shape)
        limit = self.config.d_model**-0.5

        def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

        return kernel, self.param("bias", uniform, shape[1:])
