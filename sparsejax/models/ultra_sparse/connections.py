"""A trained net as the connections that count: what the exporters write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.ultra_sparse.config import Activation, Layer, UltraSparseConfig
from sparsejax.models.ultra_sparse.fuse import Trained
from sparsejax.models.ultra_sparse.model import UltraSparseNet
from sparsejax.models.ultra_sparse.quantize import quantize

ExportedWeights = Literal["float32", "int8"]


@dataclass(frozen=True)
class Connections:
    """The connections of one layer, neuron by neuron.

    Attributes:
      sources: per neuron, the inputs that it reads (places among the values of the layer below).
      weights: per neuron, their weights: float32, or int8 codes.
      step: what a code of 1 is worth; None for float weights.
      bias: (h,) float32.
      activation: the layer's.
      width: values of the layer below.
    """

    sources: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    step: np.float32 | None
    bias: np.ndarray
    activation: Activation
    width: int


def net_connections(
    trained: Trained, weights: ExportedWeights = "float32"
) -> tuple[np.ndarray, tuple[Connections, ...]]:
    """The columns that a net reads, and its layers over them.

    Left out is what cannot change an output: slots beyond a live count, masked entries, weights of zero,
    neurons that no later neuron reads, and so the columns that nobody reads. At least one column stays.

    Args:
      trained: a checkpoint, or anything with ``config`` and ``params``.
      weights: "int8" quantises a float net by `quantize`, its scales taken over the weights that count.
        Layers that hold int8 weights keep them either way.

    Returns:
      columns (c,), ascending, and the layers from the input to the output.

    Raises:
      ValueError: no ultra-sparse net, parameters of other shapes than the config's, numbers that are not
        finite in float32, an index beyond the inputs, unknown ``weights``, or int8 asked of a net of which
        only some layers hold it.

    Example:
      >>> columns, layers = net_connections(sparsejax.load("checkpoints/ultra_sparse_sine.pt"))
      >>> len(columns), sum(len(sources) for sources in layers[0].sources)
      (15, 16)
    """
    if weights not in get_args(ExportedWeights):
        raise ValueError(f"weights {weights!r} are not one of {get_args(ExportedWeights)}")
    config = trained.config
    params = _checked_arrays(config, trained.params)
    if weights == "int8" and any(layer.weights == "float" for layer in config.layers):
        quantized, codes = quantize(config, params)
        config, params = quantized, jax.tree.map(np.asarray, dict(codes))
    layers: list[Connections] = []
    read = np.arange(config.output_size)
    for number in reversed(range(len(config.layers))):
        layer, own = config.layers[number], params[f"layer_{number}"]
        width = config.layers[number - 1].features if number else config.input_size
        read, connections = _connections(layer, own, read)
        if read[0] < 0 or read[-1] >= width:
            beyond = read[0] if read[0] < 0 else read[-1]
            raise ValueError(f"layer {number} reads input {beyond} of only {width}")
        layers.insert(0, connections)
    return read, tuple(layers)


def _connections(
    layer: Layer, own: dict[str, np.ndarray], neurons: np.ndarray
) -> tuple[np.ndarray, Connections]:
    """The inputs that some neurons of a layer read, and the connections over those inputs alone."""
    found = [_neuron(layer, own, neuron) for neuron in neurons]
    read = np.unique(np.concatenate([sources for sources, _ in found]))
    if not read.size:
        read, found[0] = np.zeros(1, int), (np.zeros(1, int), np.zeros_like(found[0][1], shape=1))
    return read, Connections(
        sources=tuple(np.searchsorted(read, sources) for sources, _ in found),
        weights=tuple(weights for _, weights in found),
        step=np.float32(own["scale"] / np.float32(127)) if layer.weights == "int8" else None,
        bias=own["bias"][neurons],
        activation=layer.activation,
        width=len(read),
    )


def _neuron(layer: Layer, own: dict[str, np.ndarray], neuron: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources and weights of one neuron, in the order of its slots, without weights of zero."""
    if layer.kind == "sparse":
        sources, weights = own["indices"][neuron], own["weights"][neuron]
    else:
        weights = own["kernel"][:, neuron]
        sources = np.arange(len(weights))
    return sources[weights != 0], weights[weights != 0]


def _checked_arrays(config: UltraSparseConfig, params: Any) -> dict[str, dict[str, np.ndarray]]:
    """NumPy arrays of the config's shapes, float32 and finite, with zeros where a weight does not count."""
    if not isinstance(config, UltraSparseConfig):
        raise ValueError(f"an ultra-sparse net is needed, not one with a {type(config).__name__}")
    net, inputs = UltraSparseNet(config), jnp.zeros(config.input_size)
    shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)["params"]
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for number, layer in enumerate(config.layers):
        name = f"layer_{number}"
        own = {key: np.asarray(value) for key, value in dict(params.get(name, {})).items()}
        for key, expected in shapes[name].items():
            if key not in own or own[key].shape != expected.shape:
                found = f"has shape {own[key].shape}" if key in own else "is missing"
                raise ValueError(f"{name}/{key} {found}; the config needs {expected.shape}")
        own = _without_dead_weights(layer, own)
        arrays[name] = {
            key: _as_stored(own[key], f"{name}/{key}", shapes[name][key].dtype) for key in shapes[name]
        }
    return arrays


def _without_dead_weights(layer: Layer, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if layer.variable_fan_in:
        live = np.arange(own["weights"].shape[1]) < own["live"][:, None]
        return {**own, "weights": np.where(live, own["weights"], np.zeros_like(own["weights"]))}
    if layer.kind == "masked":
        kernel = np.where(own["mask"].astype(bool), own["kernel"], np.zeros_like(own["kernel"]))
        return {**own, "kernel": kernel}
    return own


def _as_stored(values: np.ndarray, name: str, dtype: np.dtype) -> np.ndarray:
    """Weights, biases and scales as float32; codes, indices and masks as they are."""
    if (values.dtype == np.int8) != (dtype == np.int8):
        raise ValueError(f"{name} holds {values.dtype}; the config needs {dtype}")
    if not jnp.issubdtype(dtype, jnp.floating):
        return values
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds a number that is not finite in float32: such a net is not exported")
    return values
