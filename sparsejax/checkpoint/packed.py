"""Quantised parameters on their way into and out of checkpoints: as the bytes that a GGUF file has.

How a `QuantizedTensor` lies in memory may change with the library; its bytes do not. A checkpoint directory
holds them as uint8, and says beside them what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError, NonFiniteError
from sparsejax.checkpoint.materialise import all_finite
from sparsejax.checkpoint.tree import flatten, unflatten
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.quantized.formats import byte_count, format_named


def is_packed(leaf: Any) -> bool:
    """Whether a parameter is a `QuantizedTensor`.

    Example:
      >>> is_packed(np.ones(3))
      False
    """
    return isinstance(leaf, QuantizedTensor)


def as_bytes(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters with quantised ones as bytes.

    Args:
      params: nested dict.

    Returns:
      nested dict of arrays, and by path what the bytes are, as plain JSON.

    Example:
      >>> weights = QuantizedTensor.quantize(np.ones((2, 32)), "q8_0")
      >>> arrays, told = as_bytes({"w": weights})
      >>> arrays["w"].shape, told
      ((68,), {'w': {'format': 'q8_0', 'shape': [2, 32], 'order': 'rows'}})
    """
    flat = flatten(params)
    told = {
        path: {"format": leaf.format, "shape": list(leaf.shape), "order": leaf.order}
        for path, leaf in flat.items()
        if is_packed(leaf)
    }
    arrays = {path: leaf.to_bytes() if path in told else leaf for path, leaf in flat.items()}
    return unflatten(arrays), told


def bytes_template(template: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes of a model's parameters with those of bytes where a checkpoint has bytes.

    Args:
      template: nested shapes of the model.
      told: by path what the bytes are.

    Raises:
      CorruptFileError: ``told`` makes no sense.
    """
    flat = flatten(template)
    for path, leaf in flat.items():
        if path in told:
            flat[path] = jax.ShapeDtypeStruct((_byte_count(path, told[path]),), np.uint8)
        elif is_packed(leaf):
            flat[path] = jax.ShapeDtypeStruct(leaf.shape, np.float32)
    return unflatten(flat)


def from_bytes(arrays: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `as_bytes`.

    Raises:
      CorruptFileError: ``told`` does not fit the bytes.
    """
    flat = flatten(arrays)
    for path, fields in told.items():
        try:
            raw, shape = np.asarray(flat[path]), tuple(fields["shape"])
            flat[path] = QuantizedTensor.from_bytes(raw, fields["format"], shape, order=fields["order"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"the quantised parameter {path!r} cannot be read: {error}") from error
    return unflatten(flat)


def in_order(params: Mapping[str, Any], needed: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose quantised ones lie as those of a template do: a product reads them faster so.

    Args:
      params: by path.
      needed: shapes by path.
    """
    return {
        path: leaf.ordered(needed[path].order) if is_packed(leaf) and is_packed(needed[path]) else leaf
        for path, leaf in params.items()
    }


def check_finite(tensor: QuantizedTensor, name: str) -> None:
    """Refuse scales that are NaN or infinite.

    Raises:
      NonFiniteError: names the tensor.
    """
    for plane in jax.tree.leaves(tensor):
        if not all_finite(np.asarray(plane)):
            raise NonFiniteError(f"scales of {name!r} ({tensor.format}) are NaN or infinite; is it damaged?")


def _byte_count(path: str, fields: Mapping[str, Any]) -> int:
    try:
        return byte_count(format_named(fields["format"]), tuple(map(int, fields["shape"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(
            f"what is said of the quantised parameter {path!r} is damaged: {error}"
        ) from error
