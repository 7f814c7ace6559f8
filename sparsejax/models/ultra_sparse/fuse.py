"""A trained sine net as one jitted function of raw x, without the 256-column matrix in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import Layer, UltraSparseConfig
from sparsejax.models.ultra_sparse.features import Recipe, column_table, evaluate_column, expand_input
from sparsejax.models.ultra_sparse.layers import activate
from sparsejax.models.ultra_sparse.model import forward
from sparsejax.models.ultra_sparse.quantize import dequantize
from sparsejax.typing import Params, Scalars


class Trained(Protocol):
    """Anything with a config and parameters, such as a `Checkpoint`."""

    @property
    def config(self) -> UltraSparseConfig:
        """The stack."""

    @property
    def params(self) -> Params:
        """Its parameters."""


def fuse(trained: Trained, recipe: Recipe = "trained") -> Callable[[Scalars], jax.Array]:
    """The whole ``x -> y`` of a net over a feature expansion, as one jitted function of raw x.

    The parameters become constants of the compiled program. A sparse first layer computes only the
    columns that its table names (14 of 256 in the shipped net) and everything stays elementwise in x, so
    that no feature matrix exists. Other nets expand inside the same program.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      recipe: the expansion that the net was trained on (see `expand_input`).

    Returns:
      f(x) for x in radians: with one output () -> (), (n,) -> (n,), (n, 1) -> (n, 1), and generally the
      shape of x; with o > 1 outputs, the shape of x with a trailing axis o.

    Raises:
      ValueError: the recipe has another number of columns than the net has inputs.

    Example:
      >>> ck = sparsejax.load("checkpoints/ultra_sparse_sine.pt")
      >>> fuse(ck)(jnp.zeros((5, 1))).shape
      (5, 1)

    Source: specs/ultra_sparse.md section 12.
    """
    config = trained.config
    params = jax.tree.map(np.asarray, dict(trained.params))
    table_columns = _expansion_size(config, recipe)
    first = config.layers[0]
    elementwise = first.kind == "sparse" and all(layer.kind == "dense" for layer in config.layers[1:])

    def on_columns(x: jax.Array) -> jax.Array:
        values = _first_layer(x, first, params["layer_0"], recipe, table_columns)
        for number, layer in enumerate(config.layers[1:], start=1):
            values = _dense_elementwise(values, layer, params[f"layer_{number}"])
        return values[0] if len(values) == 1 else jnp.stack(values, axis=-1)

    def on_matrix(x: jax.Array) -> jax.Array:
        outputs = forward(config, params, expand_input(x, recipe, **table_columns))
        return outputs[..., 0] if config.output_size == 1 else outputs

    @jax.jit
    def fused(x: Scalars) -> jax.Array:
        x = jnp.asarray(x)
        x = x.astype(jnp.result_type(x, jnp.float32))
        return on_columns(x) if elementwise else on_matrix(x)

    return fused


class _Counts(TypedDict):
    true_columns: int
    noise_columns: int


def _expansion_size(config: UltraSparseConfig, recipe: Recipe) -> _Counts:
    size = config.input_size
    counts = _Counts(true_columns=min(16, size), noise_columns=max(0, size - 16))
    if len(column_table(recipe, **counts)) != size:
        raise ValueError(f"the {recipe} recipe has no expansion of {size} columns")
    return counts


def _first_layer(
    x: jax.Array, layer: Layer, own: dict[str, np.ndarray], recipe: Recipe, counts: _Counts
) -> list[jax.Array]:
    table = column_table(recipe, **counts)
    weights = _float_weights(own, "weights", layer)
    if layer.variable_fan_in:
        slots = np.arange(weights.shape[1])
        weights = np.where(slots < own["live"][:, None], weights, 0)
    used = sorted(
        {int(index) for row, live in zip(own["indices"], weights != 0, strict=True) for index in row[live]}
    )
    columns = {index: evaluate_column(x, table[index]) for index in used}
    neurons = []
    for row, row_weights, bias in zip(own["indices"], weights, own["bias"], strict=True):
        total = jnp.full_like(x, bias)
        for index, weight in zip(row, row_weights, strict=True):
            if weight != 0:
                total = total + columns[int(index)] * weight.astype(x.dtype)
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
    if layer.weights == "float":
        return own[name]
    return np.asarray(dequantize(jnp.asarray(own[name]), jnp.asarray(own["scale"])))
