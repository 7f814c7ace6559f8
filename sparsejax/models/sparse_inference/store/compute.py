"""What units in slots compute: the listed neurons of the slots, as if the slots were the layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.models.sparse_inference.store.units import UnitLayout
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import FFNWeights, own_outputs, shared_outputs

_FEWEST = 8
_STEPS = 8


@partial(jax.jit, static_argnames=("layout", "activation", "last"))
def slot_outputs(
    total: Array | None,
    flat: Array,
    arrays: tuple[Array, ...],
    places: Array,
    gates: Array | None,
    *,
    bias: Array | None,
    layout: UnitLayout,
    activation: str,
    last: bool,
) -> Array:
    """The outputs of some neurons in slots, added to those of others.

    Args:
      total: (n, o) of the others, or None.
      flat: (n, d).
      arrays: by plane, (slots, *shape).
      places: int32 (k,) of the neurons: slot times neurons of a unit, plus the number in the unit; whole
        units where weights are quantised. Those beyond the last slot add nothing.
      gates: bool (n, k), the neurons of each token; None is all of them for each.
      bias: (o,) added at the end, or None.
      layout: of a unit.
      activation: a name in `ACTIVATIONS` or `GATED_ACTIVATIONS`.
      last: whether these are the last of the layer: the bias is added, and the dtype is that of ``flat``.

    Returns:
      (n, o), in float32 at least unless ``last``.
    """
    if layout.quantized:
        weights, places = _dequantized(arrays, places, layout)
    else:
        weights = layout.weights(arrays)
    if len(flat) == 1 and gates is None:
        found = own_outputs(flat, weights, places[None], activation)
    else:
        found = shared_outputs(flat, weights, places, activation, gates=gates)
    found = found if total is None else total + found
    if not last:
        return found
    return (found if bias is None else found + bias).astype(flat.dtype)


def list_length(count: int, unit: int) -> int:
    """So many neurons, filled up to one of a few lengths, eight for each power of two; whole units.

    Args:
      count: neurons in the list.
      unit: neurons of a unit.

    Example:
      >>> [list_length(count, 1) for count in (0, 3, 9, 1000, 1101)], list_length(70, 32)
      ([8, 8, 9, 1024, 1152], 96)
    """
    units = max(-(-count // unit), _FEWEST if unit == 1 else 1)
    step = max(1, (1 << (units - 1).bit_length()) // (2 * _STEPS))
    return -(-units // step) * step * unit


def _dequantized(arrays: tuple[Array, ...], places: Array, layout: UnitLayout) -> tuple[FFNWeights, Array]:
    """Plain weights of the units at some places, and where in them their neurons are."""
    slots = places[:: layout.unit] // layout.unit
    taken = [array.at[slots].get(mode="clip") for array in arrays]
    weights = layout.weights(taken)
    plain = {name: _plain(name, part) for name, part in weights._asdict().items()}
    count = len(slots) * layout.unit
    here = jnp.arange(count, dtype=jnp.int32)
    beyond = places >= arrays[0].shape[0] * layout.unit
    return FFNWeights(**plain), jnp.where(beyond, count, here)


def _plain(name: str, part: Any) -> Any:
    if not isinstance(part, QuantizedTensor):
        return part
    values = part.dequantize()
    return values.T if name == "w_out" else values
