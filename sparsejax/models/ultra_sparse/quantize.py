"""Int8 weights and sign activations of a trained net, as parameters of the same module."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.typing import Params

Array = TypeVar("Array", jax.Array, np.ndarray)
Rounding = Literal["nearest", "truncate"]
_LEVELS = 127


def dequantize(codes: Array, scale: Array) -> Array:
    """Weights ``codes / 127 * scale`` in the scale's dtype; codes int8 of any shape, scale ().

    NumPy arrays give a NumPy array, also while a program is traced.
    """
    return codes.astype(scale.dtype) / _LEVELS * scale


def quantize_weights(weights: jax.Array, rounding: Rounding = "nearest") -> tuple[jax.Array, jax.Array]:
    """Symmetric int8 codes of a weight array and its scale max|w|.

    Args:
      weights: any shape, finite.
      rounding: "nearest" (ties to even): error at most scale / 254. "truncate" is what the original did,
        with twice the error and a bias towards zero; it is here to compare with its numbers.

    Returns:
      codes (same shape, int8) and scale ().

    Raises:
      ValueError: unknown rounding.

    Example:
      >>> codes, scale = quantize_weights(jnp.array([1.0, -0.5, 0.0]))
      >>> codes.tolist()
      [127, -64, 0]

    Source: specs/ultra_sparse.md section 4 (int8).
    """
    if rounding not in get_args(Rounding):
        raise ValueError(f"rounding {rounding!r} is not one of {get_args(Rounding)}")
    # On the host: XLA divides by multiplying with a reciprocal, after which max|w| may truncate to 126.
    values = np.asarray(weights)
    scale = np.max(np.abs(values), initial=0)
    levels = values / (scale or 1) * values.dtype.type(_LEVELS)
    whole = np.trunc(levels) if rounding == "truncate" else np.rint(levels)
    return jnp.asarray(whole.astype(np.int8)), jnp.asarray(scale)


def quantize(
    config: UltraSparseConfig, params: Params, *, rounding: Rounding = "nearest", sign_hidden: bool = False
) -> tuple[UltraSparseConfig, Params]:
    """The net with int8 weights and, if asked, sign activations in its hidden layers.

    Args:
      config: of a float net.
      params: its parameters.
      rounding: see `quantize_weights`.
      sign_hidden: hidden activations become sign(pre-activation); the output keeps its own.

    Returns:
      the new config and parameters; biases stay float.

    Raises:
      ValueError: the net is quantised already.
    """
    layers, arrays = [], {}
    for number, layer in enumerate(config.layers):
        if layer.weights != "float":
            raise ValueError(f"layer {number} holds int8 weights already")
        name = "weights" if layer.kind == "sparse" else "kernel"
        own = dict(params[f"layer_{number}"])
        own[name], own["scale"] = quantize_weights(own[name], rounding)
        arrays[f"layer_{number}"] = own
        hidden = number < len(config.layers) - 1
        activation = "sign" if sign_hidden and hidden else layer.activation
        layers.append(dataclasses.replace(layer, weights="int8", activation=activation))
    return dataclasses.replace(config, layers=tuple(layers)), arrays


def with_sign_hidden(config: UltraSparseConfig) -> UltraSparseConfig:
    """The same net with sign activations in its hidden layers and float weights."""
    *hidden, output = config.layers
    signed = (dataclasses.replace(layer, activation="sign") for layer in hidden)
    return dataclasses.replace(config, layers=(*signed, output))
