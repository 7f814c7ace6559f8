"""What the originals report about a net: error, saturation, energies, selected inputs; and its true size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sparsejax.models.ultra_sparse.config import UltraSparseConfig
from sparsejax.models.ultra_sparse.model import activations
from sparsejax.models.ultra_sparse.quantize import dequantize
from sparsejax.typing import Features, Params

SATURATION_THRESHOLD = 0.95


def saturated_share(hidden: Sequence[jax.Array]) -> jax.Array:
    """() share of the hidden layers' activations with |h| > 0.95; 0 of a net without hidden layers.

    Args:
      hidden: activations of each layer, of any shapes.

    Example:
      >>> float(saturated_share([jnp.array([0.5, -1.0]), jnp.array([[0.2, 0.99]])]))
      0.5
    """
    if not hidden:
        return jnp.zeros(())
    flat = jnp.concatenate([jnp.ravel(activation) for activation in hidden])
    return jnp.mean(jnp.abs(flat) > SATURATION_THRESHOLD)


@dataclass(frozen=True)
class NetworkStats:
    """Statistics of a net on one batch; the first seven fields are the ``stats`` of the published files.

    Attributes:
      mse: mean squared error over all elements.
      saturation: share of hidden activations, over samples and neurons, with |h| > 0.95.
      activation_energy: mean |h| of the hidden layers (mean of the layers' means).
      weight_energy: mean |p| over weights **and biases** together (the files' definition).
      total_energy: ``activation_energy + weight_energy``.
      parameters: weights and biases; index tables are not counted (the files' definition).
      memory_bytes: 4 bytes per parameter (the files' definition).
      weight_energy_without_biases: mean |w| over weights alone (the library's other definition).
      energy_without_biases: ``activation_energy + weight_energy_without_biases``.
      saturated_neurons: saturated activations of the last hidden layer per sample, rounded down.
      total_neurons: neurons of the last hidden layer.
    """

    mse: float
    saturation: float
    activation_energy: float
    weight_energy: float
    total_energy: float
    parameters: int
    memory_bytes: int
    weight_energy_without_biases: float
    energy_without_biases: float
    saturated_neurons: int
    total_neurons: int


@dataclass(frozen=True)
class SelectionStats:
    """Which inputs the first layer reads, counted both ways.

    Attributes:
      total_connections: slots of the table (with multiplicity, live ones only).
      true_connections: slots that read a true input.
      true_ratio: ``true_connections / total_connections``.
      expected_random_ratio: true inputs / all inputs.
      selection_factor: ``true_ratio / expected_random_ratio``; 1 is what chance gives.
      selected: distinct inputs read, sorted.
      true_selected: distinct true inputs read, sorted.
      precision: true share of the distinct inputs.
      recall: share of the true inputs that are read.
      f1: harmonic mean of precision and recall.
    """

    total_connections: int
    true_connections: int
    true_ratio: float
    expected_random_ratio: float
    selection_factor: float
    selected: tuple[int, ...]
    true_selected: tuple[int, ...]
    precision: float
    recall: float
    f1: float


def network_stats(
    config: UltraSparseConfig, params: Params, features: Features, targets: ArrayLike
) -> NetworkStats:
    """Error, saturation and energies of a net on a batch.

    Args:
      config: the stack.
      params: its parameters.
      features: (b, i).
      targets: (b, o), or (b,) for one output.

    Returns:
      `NetworkStats`.

    Raises:
      ValueError: targets of another shape than the outputs. (The original broadcast (b, 1) against (b,)
        to (b, b) and reported a wrong error.)

    Source: specs/ultra_sparse.md section 7.
    """
    *hidden, outputs = activations(config, params, features)
    targets = jnp.asarray(targets)
    if targets.shape == outputs.shape[:-1] and config.output_size == 1:
        targets = targets[..., None]
    if targets.shape != outputs.shape:
        raise ValueError(f"targets of shape {targets.shape} do not fit outputs of shape {outputs.shape}")
    weights, biases = _weights_and_biases(config, params)
    activation_energy = float(np.mean([float(jnp.mean(jnp.abs(h))) for h in hidden])) if hidden else 0.0
    with_biases, without = _mean_abs(weights + biases), _mean_abs(weights)
    last = jnp.abs(hidden[-1]) > SATURATION_THRESHOLD if hidden else jnp.zeros((1, 0), bool)
    return NetworkStats(
        mse=float(jnp.mean((outputs - targets) ** 2)),
        saturation=float(saturated_share(hidden)),
        activation_energy=activation_energy,
        weight_energy=with_biases,
        total_energy=activation_energy + with_biases,
        parameters=config.num_parameters,
        memory_bytes=4 * config.num_parameters,
        weight_energy_without_biases=without,
        energy_without_biases=activation_energy + without,
        saturated_neurons=int(last.sum() / max(1, math.prod(last.shape[:-1]))),
        total_neurons=last.shape[-1],
    )


def selection_stats(config: UltraSparseConfig, params: Params, true_inputs: Iterable[int]) -> SelectionStats:
    """Which inputs the first, sparse layer reads, against a set known to be true.

    Args:
      config: a stack whose first layer is sparse.
      params: its parameters.
      true_inputs: input numbers that matter.

    Returns:
      `SelectionStats`.

    Raises:
      ValueError: the first layer has no index table, or a true input does not exist.

    Source: specs/ultra_sparse.md section 7. The published files call column 15, a constant zero, and
    column 4, the regression target, "true".
    """
    if config.layers[0].kind != "sparse":
        raise ValueError("the first layer reads every input: there is no selection to measure")
    true = {int(index) for index in true_inputs}
    if outside := sorted(index for index in true if not 0 <= index < config.input_size):
        raise ValueError(f"true inputs {outside} are outside of the {config.input_size} inputs")
    connections = _live_connections(params["layer_0"])
    selected = set(connections)
    hits = sum(index in true for index in connections)
    ratio, expected = hits / len(connections), len(true) / config.input_size
    found = selected & true
    precision, recall = len(found) / len(selected), len(found) / len(true) if true else 0.0
    return SelectionStats(
        total_connections=len(connections),
        true_connections=hits,
        true_ratio=ratio,
        expected_random_ratio=expected,
        selection_factor=ratio / expected if expected else 0.0,
        selected=tuple(sorted(selected)),
        true_selected=tuple(sorted(found)),
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if found else 0.0,
    )


def storage_bits(config: UltraSparseConfig) -> int:
    """Bits needed to store the net: weights, biases, **and** what says which inputs are read.

    An index costs ceil(log2(inputs)) bits, a mask one bit per entry, a live count ceil(log2(slots + 1)).
    The originals count neither, which makes 33 floats out of a net that needs 1184 bits (37 floats).

    Example:
      >>> storage_bits(UltraSparseConfig())
      1184
    """
    width, bits = config.input_size, 0
    for layer in config.layers:
        weight_bits = 8 if layer.weights == "int8" else 32
        connections = layer.features * (layer.fan_in or width)
        bits += connections * weight_bits + layer.features * 32
        bits += 32 if layer.weights == "int8" else 0
        bits += connections * math.ceil(math.log2(max(2, width))) if layer.kind == "sparse" else 0
        bits += connections if layer.kind == "masked" else 0
        bits += layer.features * math.ceil(math.log2((layer.fan_in or 0) + 1)) if layer.variable_fan_in else 0
        width = layer.features
    return bits


def _live_connections(own: Params) -> list[int]:
    indices = np.asarray(own["indices"])
    live = np.asarray(own.get("live", np.full(len(indices), indices.shape[1])))
    return [int(index) for row, count in zip(indices, live, strict=True) for index in row[:count]]


def _weights_and_biases(config: UltraSparseConfig, params: Params) -> tuple[list[jax.Array], list[jax.Array]]:
    weights, biases = [], []
    for number, layer in enumerate(config.layers):
        own = params[f"layer_{number}"]
        stored = own["weights" if layer.kind == "sparse" else "kernel"]
        weights.append(dequantize(stored, own["scale"]) if layer.weights == "int8" else stored)
        biases.append(own["bias"])
    return weights, biases


def _mean_abs(arrays: list[jax.Array]) -> float:
    return float(jnp.mean(jnp.abs(jnp.concatenate([jnp.ravel(array) for array in arrays]))))
