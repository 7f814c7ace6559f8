"""The feed-forward part whose neurons are picked per token at run time."""

from __future__ import annotations

import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.config import Mixer, Path, SproutFFNConfig
from sparsejax.models.sprout.deep_sets import DeepSetsFFN
from sparsejax.models.sprout.inputs import check_choices, check_features, check_top_k, check_top_ks
from sparsejax.models.sprout.mixer import ManifoldMixer
from sparsejax.models.sprout.routing import Router
from sparsejax.models.sprout.selection import Selection, select
from sparsejax.models.sprout.token_chunks import in_chunks
from sparsejax.ops.sparse_ffn import (
    ACTIVATIONS,
    FFNWeights,
    choose_path,
    dense_ffn,
    masked_ffn,
    sparse_ffn,
)

_STD = 0.02

TopK = int | jax.Array | None
"""Neurons per token: static, or traced as an integer array (); None is ``config.sparse_k``, else all."""


class SproutFFN(nn.Module):
    """``gelu(m * (x w_in^T)) w_out`` with a mask m of each token's ``top_k`` best-scored neurons.

    Attributes:
      config: sizes, router and optional parts.
      dtype: of the computation; None is that of the parameters.

    Example:
      >>> ffn = SproutFFN(SproutFFNConfig(d_model=8, d_ff=32))
      >>> params = jax.jit(ffn.init)(jax.random.key(0), jnp.ones((1, 2, 8)))
      >>> ffn.apply(params, jnp.ones((1, 2, 8)), top_k=4).shape
      (1, 2, 8)

    Source: specs/sprout.md section 1.2: the mask comes before the activation, whose value at 0 is 0, so that
    masking neurons and leaving them out are one function.
    """

    config: SproutFFNConfig
    dtype: jax.typing.DTypeLike | None = None

    def __call__(self, inputs: jax.Array, **options: Any) -> jax.Array:
        """Outputs (*b, d) from inputs (*b, d); options as in `routed`."""
        return self.routed(inputs, **options)[0]

    @nn.compact
    def routed(
        self,
        inputs: jax.Array,
        *,
        top_k: TopK = None,
        path: Path = "auto",
        mixer: Mixer = "published",
        train: bool = False,
        straight_through: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Outputs (*b, d), and the part (f,) of the tokens that used each neuron.

        Args:
          inputs: (*b, d).
          top_k: neurons per token; 0 gives zeros (an FFN with biases its output's, one of DeepSets what it
            reads out of no neuron), d_ff or more all neurons. With blocks it is rounded down to whole ones,
            but at least one. A traced one of single neurons takes the masked path.
          path: "masked" and "gather" compute the same function; "block" selects whole blocks of neurons, a
            different one, and computes no others; "auto" takes the fastest that computes what the router's
            kind selects.
          mixer: whether the manifold mixer, if there is one, acts in sparse calls: "published" in training
            only.
          train: with dropout.
          straight_through: neurons are multiplied by their mask, whose gradient is that of the sigmoid of
            their scores.

        Raises:
          ValueError: an option is not known, or inputs have another width.
        """
        config = self.config
        check_choices(path, mixer)
        check_features(config, inputs)
        top_k = resolve_top_k(config, top_k)
        w_in = self.param("w_in", nn.initializers.normal(_STD), (config.d_ff, config.d_model))
        self.sow("intermediates", "ffn_in", inputs)
        selection = None
        if top_k is not None or self.is_initializing():
            blocks = config.selects_blocks or path == "block"
            scores = Router(config, dtype=self.dtype, name="router")(inputs, w_in, blocks=blocks)
            self.sow("intermediates", "scores", scores)
            if top_k is not None:
                selection = select(config, scores, top_k, blocks=blocks)
        usage = jnp.ones(config.d_ff) if selection is None else selection.usage
        if config.deep_sets is not None:
            return self._deep_sets(inputs, w_in, selection, train, straight_through), usage
        weights = self._weights(w_in)
        inputs, weights = _promoted(inputs, weights, self.dtype)
        mixes = mixer == "always" or (mixer == "published" and train)
        if config.mixer_hidden and (self.is_initializing() or (mixes and selection is not None)):
            return self._mixed(inputs, weights, selection, train, straight_through), usage
        if selection is None:
            return dense_ffn(inputs, weights, activation=config.activation), usage
        if straight_through:
            return masked_ffn(inputs, weights, selection.gates, activation=config.activation), usage
        return self._selected(inputs, weights, selection, top_k, path), usage

    def _weights(self, w_in: jax.Array) -> FFNWeights:
        config = self.config
        w_out = self.param("w_out", nn.initializers.normal(_STD), (config.d_ff, config.d_model))
        if not config.use_bias:
            return FFNWeights(w_in, w_out)
        b_in = self.param("b_in", nn.initializers.zeros, (config.d_ff,))
        b_out = self.param("b_out", nn.initializers.zeros, (config.d_model,))
        return FFNWeights(w_in, w_out, b_in=b_in, b_out=b_out)

    def _selected(
        self, inputs: jax.Array, weights: FFNWeights, selection: Selection, top_k: Any, path: Path
    ) -> jax.Array:
        config, size = self.config, selection.block_size
        taken: Any = path
        if path in ("auto", "block"):
            taken = choose_path(inputs.size // config.d_model, config.d_ff, top_k, size)
            taken = path if path == "block" and taken == "masked" else taken
        plain = size == 1 and not isinstance(top_k, int)
        if plain or taken == "masked":  # the mask is there already, for the usage
            return masked_ffn(inputs, weights, selection.mask, activation=config.activation)
        return sparse_ffn(
            inputs,
            weights,
            selection.scores,
            top_k,
            block_size=size,
            activation=config.activation,
            path=taken,
        )

    def _mixed(
        self,
        inputs: jax.Array,
        weights: FFNWeights,
        selection: Selection | None,
        train: bool,
        straight_through: bool,
    ) -> jax.Array:
        config = self.config
        assert config.mixer_hidden is not None
        mix = ManifoldMixer(config.mixer_hidden, config.dropout, dtype=self.dtype, name="mixer")
        flat, indices, gates = _chosen(inputs, selection, straight_through)
        sums = jnp.matmul(flat, weights.w_in.T)
        sums = sums if weights.b_in is None else sums + weights.b_in
        sums = sums if indices is None else jnp.take_along_axis(sums, indices, axis=-1)
        activations = ACTIVATIONS[config.activation](sums)
        size = 2 * config.mixer_hidden * activations.shape[-1]
        mixed = in_chunks(mix, (activations, gates), per_token=size, train=train)
        if indices is not None:
            rows = jnp.arange(len(flat))[:, None]
            # Added, since neurons that do not exist stand at the index of one that does, with 0.
            mixed = jnp.zeros((len(flat), config.d_ff), mixed.dtype).at[rows, indices].add(mixed)
        outputs = jnp.matmul(mixed.astype(weights.w_out.dtype), weights.w_out)
        outputs = outputs if weights.b_out is None else outputs + weights.b_out
        return outputs.reshape(inputs.shape).astype(inputs.dtype)

    def _deep_sets(
        self,
        inputs: jax.Array,
        w_in: jax.Array,
        selection: Selection | None,
        train: bool,
        straight_through: bool,
    ) -> jax.Array:
        config = self.config
        assert config.deep_sets is not None
        read = DeepSetsFFN(config, dtype=self.dtype, name="deep_sets")
        inputs, w_in = nn.dtypes.promote_dtype(inputs, w_in, dtype=self.dtype)
        flat, indices, gates = _chosen(inputs, selection, straight_through)
        sums = jnp.matmul(flat, w_in.T)
        sums = sums if indices is None else jnp.take_along_axis(sums, indices, axis=-1)
        activations = ACTIVATIONS[config.activation](sums)
        size = config.deep_sets.d_hidden * activations.shape[-1]
        arrays = (flat, activations, indices, gates)
        return in_chunks(read, arrays, per_token=size, train=train).reshape(inputs.shape)


def resolve_top_k(config: SproutFFNConfig, top_k: Any) -> TopK:
    """What a call's ``top_k`` means: None for all neurons.

    Raises:
      ValueError: it is negative, or no integer.

    Example:
      >>> resolve_top_k(SproutFFNConfig(d_ff=8, d_model=4), 8) is None
      True
    """
    top_k = config.sparse_k if top_k is None else top_k
    check_top_k(top_k)
    if top_k is None:
        return None
    if isinstance(top_k, jax.Array | np.ndarray):
        return jnp.asarray(top_k)
    return None if top_k >= config.d_ff else operator.index(top_k)


def per_layer(top_k: Any, n_layers: int) -> tuple[TopK, ...]:
    """One ``top_k`` for each layer.

    Args:
      top_k: one for all, a sequence of one per layer, or an integer array (n_layers,).
      n_layers: how many are needed.

    Raises:
      ValueError: there are not so many, or one is no number of neurons.

    Example:
      >>> per_layer(4, 2), per_layer((4, None), 2)
      ((4, 4), (4, None))
    """
    if not check_top_ks(top_k, n_layers):
        return (top_k,) * n_layers
    return tuple(top_k[number] for number in range(n_layers))


def _promoted(
    inputs: jax.Array, weights: FFNWeights, dtype: jax.typing.DTypeLike | None
) -> tuple[jax.Array, FFNWeights]:
    inputs, *parts = nn.dtypes.promote_dtype(inputs, *weights, dtype=dtype)
    return inputs, FFNWeights(*parts)


def _chosen(
    inputs: jax.Array, selection: Selection | None, straight_through: bool
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """The tokens (n, d), the neurons (n, k) to compute, None for all, and their factors, None for 1."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    if selection is None:
        return flat, None, None
    if straight_through or not isinstance(selection.count, int):
        gates = selection.gates if straight_through else selection.mask
        return flat, None, gates.reshape(len(flat), gates.shape[-1])
    indices, exist = selection.indices
    there = None if exist is None else exist.reshape(len(flat), exist.shape[-1])
    return flat, indices.reshape(len(flat), indices.shape[-1]), there
