"""A trained net as one jitted function with constant parameters: of raw x (`fuse`), or of its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypedDict, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig
from sparsejax.models.ultra_sparse.fast_sine import fast_sine
from sparsejax.models.ultra_sparse.features import (
    Column,
    Recipe,
    as_real,
    column_table,
    evaluate_column,
    expand_input,
)
from sparsejax.models.ultra_sparse.layers import activate
from sparsejax.models.ultra_sparse.model import forward
from sparsejax.models.ultra_sparse.quantize import dequantize
from sparsejax.typing import Params

_WRITTEN_OUT_CONNECTIONS = 512
"""Nets up to this size are written out term by term; compile time grows with the terms (0.1 s at 24)."""


@runtime_checkable
class Trained(Protocol):
    """Anything with a config and parameters, such as a `Checkpoint`."""

    @property
    def config(self) -> UltraSparseConfig:
        """The stack."""

    @property
    def params(self) -> Params:
        """Its parameters."""


def fuse(trained: Trained, recipe: Recipe = "trained") -> Callable[[ArrayLike], jax.Array]:
    """The whole ``x -> y`` of a net over a feature expansion, as one jitted function of raw x.

    The parameters become constants of the compiled program. A sparse first layer computes only the
    columns that its table names (14 of 256 in the published net) and everything stays elementwise in x, so
    that no feature matrix exists. Other nets expand inside the same program. NaN in gives NaN out.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      recipe: the expansion that the net was trained on (see `expand_input`).

    Returns:
      f(x) for x in radians: with one output () -> (), (n,) -> (n,), (n, 1) -> (n, 1), and generally the
      shape of x; with o > 1 outputs, the shape of x with a trailing axis o.

    Raises:
      ValueError: the recipe has fewer columns than the net has inputs.

    Example:
      >>> ck = sparsejax.load("checkpoints/ultra_sparse_sine.pt")
      >>> fuse(ck)(jnp.zeros((5, 1))).shape
      (5, 1)

    Source: specs/ultra_sparse.md section 12.
    """
    config, params = trained.config, _constants(trained)
    counts = _expansion_size(config, recipe)
    table = column_table(recipe, **counts)

    @jax.jit
    def fused(x: ArrayLike) -> jax.Array:
        x = as_real(x)
        if _fits_written_out(config, params):
            values = _written_out(config, params, lambda index: _column(x, table[index]))
            return values[0] if len(values) == 1 else jnp.stack(values, axis=-1)
        used, own = _on_used_columns(config, params)
        outputs = forward(config, own, expand_input(x, recipe, columns=used, **counts))
        return outputs[..., 0] if config.output_size == 1 else outputs

    return fused


def compile_network(trained: Trained, *, features_first: bool = False) -> Callable[[ArrayLike], jax.Array]:
    """The net over a feature matrix as one jitted function, its parameters constants of the program.

    What `Checkpoint.apply` computes, without its look at the input and with one argument to hand over
    instead of six: the fast way to call one net many times. Nothing is checked but the shape: NaN in a
    feature that the net reads comes out as NaN. Weights that are zero are left out.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      features_first: take (i, ...) and give (o, ...). Columns then are contiguous, and those that no
        neuron reads cost nothing: the layout for large batches.

    Returns:
      f(features): (i,) -> (o,) and (b, i) -> (b, o), or (i, b) -> (o, b).

    Raises:
      ValueError: when called with another number of features than the net has inputs.

    Example:
      >>> ck = sparsejax.load("checkpoints/ultra_sparse_sine.pt")
      >>> compile_network(ck, features_first=True)(jnp.zeros((256, 5))).shape
      (1, 5)
    """
    config, params = trained.config, _constants(trained)
    axis = 0 if features_first else -1

    @jax.jit
    def network(features: ArrayLike) -> jax.Array:
        features = as_real(features)
        if not features.ndim or features.shape[axis] != config.input_size:
            raise ValueError(
                f"features of shape {features.shape} do not fit a net of {config.input_size} inputs"
            )
        if _fits_written_out(config, params):
            values = _written_out(
                config, params, lambda index: jax.lax.index_in_dim(features, index, axis, keepdims=False)
            )
            return jnp.stack(values, axis=axis)
        return forward(config, params, features, features_first=features_first)

    return network


def _constants(trained: Trained) -> dict[str, Any]:
    return jax.tree.map(np.asarray, dict(trained.params))


def _fits_written_out(config: UltraSparseConfig, params: dict[str, Any]) -> bool:
    """Whether the first layer has a table, the others are dense, and all are small."""
    first, *others = config.layers
    weights = sum(np.size(own.get("weights", own.get("kernel"))) for own in params.values())
    return (
        first.kind == "sparse"
        and all(layer.kind == "dense" for layer in others)
        and weights <= _WRITTEN_OUT_CONNECTIONS
    )


def _written_out(
    config: UltraSparseConfig, params: dict[str, Any], column: Callable[[int], jax.Array]
) -> list[jax.Array]:
    """The outputs, each as one elementwise expression of the columns that it depends on."""
    values = _first_layer(column, config.layers[0], params["layer_0"])
    for number, layer in enumerate(config.layers[1:], start=1):
        values = _dense_elementwise(values, layer, params[f"layer_{number}"])
    return values


def _on_used_columns(
    config: UltraSparseConfig, params: dict[str, Any]
) -> tuple[list[int] | None, dict[str, Any]]:
    """The columns that a first table names, and the parameters over them alone; None for all columns."""
    first = config.layers[0]
    if first.kind != "sparse":
        return None, params
    indices = params["layer_0"]["indices"]
    if first.variable_fan_in:
        slots = np.arange(indices.shape[1])
        indices = np.where(slots < params["layer_0"]["live"][:, None], indices, 0)
    used, renumbered = np.unique(indices, return_inverse=True)
    if len(used) < indices.shape[1]:
        return None, params
    renumbered = renumbered.reshape(indices.shape).astype(indices.dtype)
    return used.tolist(), {**params, "layer_0": {**params["layer_0"], "indices": renumbered}}


def _column(x: jax.Array, column: Column) -> jax.Array:
    """`evaluate_column` with `fast_sine` under float32."""
    if x.dtype != jnp.float32 or column.kind not in _FAST:
        return evaluate_column(x, column)
    return _FAST[column.kind](x, np.float32(column.a), np.float32(column.b))


_FAST: dict[str, Callable[[jax.Array, np.float32, np.float32], jax.Array]] = {
    "sin": lambda x, a, b: fast_sine(x * a + b),
    "cos": lambda x, a, b: fast_sine(x * a + b, 1),
    "negative_sin": lambda x, a, b: -fast_sine(x * a),
    "negative_cos": lambda x, a, b: -fast_sine(x * a, 1),
    "sin_cos": lambda x, a, b: fast_sine(x * a) * fast_sine(x * b, 1),
    "square_wave": lambda x, a, b: jnp.sign(fast_sine(x * a)),
}


class _Counts(TypedDict):
    true_columns: int
    noise_columns: int


def _expansion_size(config: UltraSparseConfig, recipe: Recipe) -> _Counts:
    size = config.input_size
    return _Counts(true_columns=min(16, size), noise_columns=max(0, size - 16))


def _first_layer(
    column: Callable[[int], jax.Array], layer: Layer, own: dict[str, np.ndarray]
) -> list[jax.Array]:
    weights = _float_weights(own, "weights", layer)
    if layer.variable_fan_in:
        slots = np.arange(weights.shape[1])
        weights = np.where(slots < own["live"][:, None], weights, 0)
    read = own["indices"][weights != 0] if np.any(weights != 0) else own["indices"][:1, :1]
    columns = {index: column(index) for index in sorted({int(index) for index in np.ravel(read)})}
    nothing = jnp.zeros_like(next(iter(columns.values())))
    neurons = []
    for row, row_weights, bias in zip(own["indices"], weights, own["bias"], strict=True):
        total = nothing + bias.astype(nothing.dtype)
        for index, weight in zip(row, row_weights, strict=True):
            if weight != 0:
                total = total + columns[int(index)] * weight.astype(nothing.dtype)
        neurons.append(activate(total, layer.activation))
    return neurons


def _dense_elementwise(values: list[jax.Array], layer: Layer, own: dict[str, np.ndarray]) -> list[jax.Array]:
    kernel = _float_weights(own, "kernel", layer)
    outputs = []
    for column, bias in zip(kernel.T, own["bias"], strict=True):
        dtype = values[0].dtype
        terms = (value * weight for value, weight in zip(values, column.astype(dtype), strict=True))
        outputs.append(activate(sum(terms) + bias.astype(dtype), layer.activation))
    return outputs


def _float_weights(own: dict[str, np.ndarray], name: str, layer: Layer) -> np.ndarray:
    return own[name] if layer.weights == "float" else dequantize(own[name], own["scale"])
