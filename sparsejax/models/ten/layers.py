"""The modern layer: eigenstates, optional sliding attention, feed-forward; by its config every family."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.ten import init as initial
from sparsejax.models.ten.attention import sliding_attention
from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.convolution import short_convolution
from sparsejax.models.ten.eigenstates import Evolution, Pair, couple, couple_scaled, eigenvalues, evolve
from sparsejax.models.ten.segments import Segments
from sparsejax.models.ten.state import AttentionCache, LayerState
from sparsejax.ops.flat_matmul import flat_dot_general, flat_matmul
from sparsejax.ops.linear_recurrence import Decay

LAYER_NORM_EPSILON = 1e-5


class Context(NamedTuple):
    """What a layer reads beside the residual stream.

    Attributes:
      below: (b, t, 2k) coupled eigenstates of the layer below; None for the first layer.
      state: carried from the call before; None at the beginning.
      segments: documents, if there are several per row.
    """

    below: jax.Array | None
    state: LayerState | None
    segments: Segments | None

    @property
    def eigenstates(self) -> Pair | None:
        """Carried eigenstates."""
        return None if self.state is None else self.state.eigenstates

    @property
    def reset(self) -> jax.Array | None:
        """(b, t) where documents begin."""
        return None if self.segments is None else self.segments.starts


class LayerOutput(NamedTuple):
    """What a layer gives.

    Attributes:
      hidden: (b, t, d) the residual stream.
      coupled: (b, t, 2k) what the layer above may read; None where nothing is coupled on read-out.
      states: real and imaginary eigenstates (b, t, k), or (b, t, cells, k).
      state: for the next call.
    """

    hidden: jax.Array
    coupled: jax.Array | None
    states: Pair
    state: LayerState


def dropped(config: TemporalEigenstateConfig, values: jax.Array, train: bool) -> jax.Array:
    """Values of which training drops a share at random; a part of the module that calls it."""
    return nn.Dropout(config.dropout)(values, deterministic=not train)


def layer_norm(name: str, dtype: jax.typing.DTypeLike | None) -> nn.LayerNorm:
    """The normalisation of every family; statistics in float32 at least, by two passes."""
    return nn.LayerNorm(LAYER_NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name)


def dense(
    features: int,
    name: str,
    config: TemporalEigenstateConfig,
    dtype: jax.typing.DTypeLike | None,
    **options: Any,
) -> nn.Dense:
    """A dense layer as all of the family are; ``options`` are those of `flax.linen.Dense`."""
    options = {"kernel_init": initial.kernel_init(config), **options}
    return nn.Dense(features, dtype=dtype, dot_general=flat_dot_general, name=name, **options)


class EigenstateBlock(nn.Module):
    """One modern layer; `LayerOutput` of the residual stream (b, t, d).

    Source: specs/ten.md section 2.
    """

    config: TemporalEigenstateConfig
    layer: EigenstateLayer
    number: int
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, context: Context, how: Evolution, train: bool) -> LayerOutput:
        """Mix over time, then attend, then feed forward, each beside the residual."""
        normed = layer_norm("norm1", self.dtype)(inputs)
        vectors = self._eigenvectors() if self.layer.projection == "eigenvectors" else None
        drive, tail = self._drive(normed, vectors, context)
        decay = self._eigenvalues(normed)
        states, last = evolve(self.layer, drive, decay, context.eigenstates, reset=context.reset, how=how)
        coupled = self._couple(states)
        hidden = inputs + dropped(self.config, self._read_out(normed, vectors, coupled), train)
        attention = None
        if self.number in self.layer.attention_layers:
            seen, attention = self._attend(layer_norm("attention_norm", self.dtype)(hidden), context)
            hidden = hidden + seen
        fed = self._feed_forward(layer_norm("norm2", self.dtype)(hidden), train)
        hidden = hidden + dropped(self.config, fed, train)
        return LayerOutput(hidden, coupled, states, LayerState(last, tail, attention))

    def _drive(
        self, normed: jax.Array, vectors: jax.Array | None, context: Context
    ) -> tuple[jax.Array, jax.Array | None]:
        """What drives the eigenstates (b, t, 2k), and the convolution's tail."""
        layer, width, tail = self.layer, 2 * self.config.num_eigenstates, None
        if vectors is None:
            drive = self._dense(width, "in_proj", use_bias=False)(normed)
        else:
            drive = flat_matmul(normed, vectors.astype(normed.dtype))
        if layer.short_conv:
            convolution = ShortConvolution(layer.short_conv, dtype=self.dtype, name="short_conv")
            before = None if context.state is None else context.state.convolution
            convolved, tail = convolution(drive, before, context.segments)
            drive = nn.silu(convolved)
        if layer.memory and self.number:
            gate = nn.sigmoid(self.param("memory_gate", initial.memory_gate_init(), ()))
            kernel_init = initial.memory_kernel_init(self.config)
            read = self._dense(width, "memory_proj", use_bias=False, kernel_init=kernel_init)
            drive = drive + gate.astype(drive.dtype) * read(context.below)
        return drive, tail

    def _eigenvalues(self, normed: jax.Array) -> Decay:
        layer, k, selection = self.layer, self.config.num_eigenstates, None
        if layer.selective:
            kernel_init = initial.select_kernel_init(self.config)
            selection = self._dense(2 * k, "select_proj", kernel_init=kernel_init)(normed)
        return eigenvalues(
            self.param("decay_logit", initial.decay_init(self.config, layer, self.number), (k,)),
            self.param("frequency", initial.frequency_init, (k,)),
            selection,
        )

    def _couple(self, states: Pair) -> jax.Array:
        layer, k = self.layer, self.config.num_eigenstates
        if layer.coupling == "none":
            return jnp.concatenate(states, axis=-1)
        if layer.coupling == "scaled":
            scale = self.param("coupling_scale", nn.initializers.constant(initial.COUPLING_SCALE), ())
            return couple_scaled(states, scale, self.param("coupling_mixing", initial.mixing_init, (k, k)))
        blocks = self.config.n_heads if layer.coupling == "blocks" else 1
        size = k // blocks
        return couple(states, self.param("coupling", initial.coupling_init, (blocks, size, size)))

    def _read_out(self, normed: jax.Array, vectors: jax.Array | None, coupled: jax.Array) -> jax.Array:
        layer, dim = self.layer, self.config.dim
        if vectors is not None:
            return self._dense(dim, "out_proj")(flat_matmul(coupled, vectors.T.astype(coupled.dtype)))
        mixed = self._dense(dim, "out_proj", use_bias=False)(coupled)
        if layer.band_gates:
            self._dense(layer.band_gates, "band_gates")(
                normed
            )  # dead, as published: only its weights are kept
        if not layer.gate:
            return mixed
        bias_init = initial.gate_bias_init(self.config, layer)
        return nn.sigmoid(self._dense(dim, "gate", bias_init=bias_init)(normed)) * mixed

    def _eigenvectors(self) -> jax.Array:
        """(d, 2k): drives are products with the conjugate vectors, and reading out transposes them."""
        shape = (self.config.num_eigenstates, self.config.dim)
        real = self.param("eigenvectors_real", initial.eigenvector_init, shape)
        imag = self.param("eigenvectors_imag", initial.eigenvector_init, shape)
        return jnp.concatenate([real, -imag]).T

    def _attend(self, normed: jax.Array, context: Context) -> tuple[jax.Array, AttentionCache]:
        attention = SlidingAttention(self.config, self.layer.attention_window, self.dtype, name="attention")
        cache = None if context.state is None else context.state.attention
        return attention(normed, cache, context.segments)

    def _feed_forward(self, normed: jax.Array, train: bool) -> jax.Array:
        hidden = self._dense(self.config.ffn_size, "ffn_in")(normed)
        if self.layer.activation == "silu":
            return self._dense(self.config.dim, "ffn_out")(nn.silu(hidden))
        return self._dense(self.config.dim, "ffn_out")(
            dropped(self.config, nn.gelu(hidden, approximate=False), train)
        )

    def _dense(self, features: int, name: str, **options: Any) -> nn.Dense:
        return dense(features, name, self.config, self.dtype, **options)


class ShortConvolution(nn.Module):
    """Parameters of `short_convolution`."""

    taps: int
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array, tail: jax.Array | None, segments: Segments | None
    ) -> tuple[jax.Array, jax.Array]:
        """(b, t, c) to (b, t, c), and the tail."""
        shape = (self.taps, inputs.shape[-1])
        kernel = self.param("kernel", initial.convolution_init, shape)
        bias = self.param("bias", initial.convolution_bias_init(self.taps), shape[1:])
        kernel, bias = kernel.astype(inputs.dtype), bias.astype(inputs.dtype)
        return short_convolution(inputs, kernel, bias, tail=tail, segments=segments)


class SlidingAttention(nn.Module):
    """Parameters of `sliding_attention`."""

    config: TemporalEigenstateConfig
    window: int
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array, cache: AttentionCache | None, segments: Segments | None
    ) -> tuple[jax.Array, AttentionCache]:
        """(b, t, d) to (b, t, d), and the cache."""
        dim, options = self.config.dim, (self.config, self.dtype)
        xavier = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")  # of the packed (3d, d) matrix
        queries, keys, values = (
            dense(dim, name, *options, kernel_init=xavier)(inputs) for name in ("query", "key", "value")
        )
        seen, cache = sliding_attention(
            queries,
            keys,
            values,
            num_heads=self.config.n_heads,
            window=self.window,
            cache=cache,
            segments=segments,
        )
        return dense(dim, "out", *options)(seen), cache
