"""The networks of the family as one linen module over a stack of layers."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig
from sparsejax.models.ultra_sparse.layers import (
    activate,
    dense_layer,
    live_weights,
    masked_layer,
    sparse_layer,
)
from sparsejax.models.ultra_sparse.quantize import dequantize
from sparsejax.typing import EitherLayout, IndexTable, Params

_MASK_DENSITY = 0.1


def random_table(key: jax.Array, num_inputs: int, features: int, fan_in: int) -> IndexTable:
    """(features, fan_in) int32 inputs per neuron, drawn without replacement inside a neuron."""
    # The largest of uniform numbers: a permutation takes three times as long to compile.
    return jax.lax.top_k(jax.random.uniform(key, (features, num_inputs)), fan_in)[1]


class StackLayer(nn.Module):
    """One layer of the stack: parameters of its kind and one call."""

    layer: Layer

    @nn.compact
    def __call__(self, inputs: EitherLayout, features_first: bool = False) -> jax.Array:
        """(..., i) to (..., h), or (i, ...) to (h, ...)."""
        layer, width = self.layer, inputs.shape[0 if features_first else -1]
        bias = self.param("bias", nn.initializers.zeros, (layer.features,))
        if layer.fan_in is not None:
            indices = self.param("indices", random_table, width, layer.features, layer.fan_in)
            weights = self._weights("weights", (layer.features, layer.fan_in), fan_in=layer.fan_in)
            if layer.variable_fan_in:
                live = self.param(
                    "live", nn.initializers.constant(layer.fan_in), (layer.features,), jnp.int32
                )
                weights = live_weights(weights, live)
            before = sparse_layer(inputs, indices, weights, bias, features_first=features_first)
        elif layer.kind == "masked":
            kernel = self._weights("kernel", (width, layer.features), fan_in=width)
            mask = self.param("mask", lambda key: jax.random.bernoulli(key, _MASK_DENSITY, kernel.shape))
            before = masked_layer(inputs, kernel, mask, bias, features_first=features_first)
        else:
            kernel = self._weights("kernel", (width, layer.features), fan_in=width)
            before = dense_layer(inputs, kernel, bias, features_first=features_first)
        return activate(before, layer.activation)

    def _weights(self, name: str, shape: tuple[int, ...], fan_in: int) -> jax.Array:
        if self.layer.weights == "float":
            return self.param(name, nn.initializers.normal((2 / fan_in) ** 0.5), shape)
        codes = self.param(name, nn.initializers.zeros, shape, jnp.int8)
        return dequantize(codes, self.param("scale", nn.initializers.ones, ()))


class UltraSparseNet(nn.Module):
    """A stack of sparse, masked and dense layers; the default config is the published 33-parameter net.

    Shapes: (i,) to (o,) and (b, i) to (b, o); with ``features_first`` (i, b) to (o, b).

    Example:
      >>> net = UltraSparseNet(UltraSparseConfig.fixed_k(input_size=10, inputs_per_neuron=3))
      >>> params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(10))["params"]
      >>> net.apply({"params": params}, jnp.zeros((4, 10))).shape
      (4, 1)

    Source: specs/ultra_sparse.md section 4.
    """

    config: UltraSparseConfig = UltraSparseConfig()

    def setup(self):
        """One submodule per layer, named ``layer_0``, ``layer_1``, ..."""
        self.layer = [StackLayer(layer) for layer in self.config.layers]

    def __call__(self, features: EitherLayout, features_first: bool = False) -> jax.Array:
        """Outputs of the last layer."""
        return self.activations(features, features_first)[-1]

    def activations(self, features: EitherLayout, features_first: bool = False) -> list[jax.Array]:
        """Activations of every layer, the output last."""
        values = []
        for layer in self.layer:
            features = layer(features, features_first)
            values.append(features)
        return values


class DenseNet(UltraSparseNet):
    """The fully connected net that the sparse one is compared with: 256-8-1 by default."""

    config: UltraSparseConfig = UltraSparseConfig.dense()


def forward(
    config: UltraSparseConfig, params: Params, features: EitherLayout, *, features_first: bool = False
) -> jax.Array:
    """Outputs of a net as a pure function of config, parameters and features (see `UltraSparseNet`)."""
    return activations(config, params, features, features_first=features_first)[-1]


def activations(
    config: UltraSparseConfig, params: Params, features: EitherLayout, *, features_first: bool = False
) -> list[jax.Array]:
    """Activations of every layer, the output last."""
    return cast(
        list[jax.Array],
        UltraSparseNet(config).apply({"params": params}, features, features_first, method="activations"),
    )
