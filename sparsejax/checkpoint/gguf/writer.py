"""Writes a GGUF file, whole or not at all.

Source: the GGUF specification (ggml/docs/gguf.md), specs/sparse_inference.md section 6.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf.encoded_values import encoded_string, encoded_value
from sparsejax.checkpoint.gguf.reader import DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, VERSIONS
from sparsejax.checkpoint.gguf.tensor import GGUFTensor
from sparsejax.checkpoint.gguf.tensor_types import BY_NAME, TensorType
from sparsejax.checkpoint.readable import located
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.ops.quantized import QuantizedTensor


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    types: Mapping[str, str] | None = None,
    version: int = 3,
) -> None:
    """Write a GGUF file; an old one stays until the new one is whole.

    Tensors come in the order of the mapping, each at a multiple of the metadata's ``general.alignment`` (32).
    ``write_gguf(path, file.metadata, file.tensors, types=file.types, version=file.version)`` gives a file
    back as it was read.

    Args:
      path: file to write.
      metadata: bool, int, float, str, NumPy scalars and 1-D arrays, and sequences of one kind of these.
      tensors: by name: arrays of NumPy or JAX, `QuantizedTensor`, or `GGUFTensor` of another file.
      types: of metadata values by key, such as "u32" or "[str]"; otherwise ints are the first of u32, i32,
        u64 and i64 that holds them (in sequences i32, i64, u64), floats f32, NumPy values what they are.
      version: of the format, 2 or 3.

    Raises:
      GGUFError: a value, name or tensor that the format cannot hold.
      ExportError: the file cannot be written.

    Example:
      >>> import os, tempfile
      >>> from sparsejax.checkpoint.gguf import read_gguf
      >>> path = os.path.join(tempfile.mkdtemp(), "w.gguf")
      >>> write_gguf(path, {"general.name": "toy", "toy.sizes": [1, 2]}, {"w": np.ones((2, 3), np.float32)})
      >>> file = read_gguf(path)
      >>> file.types, file.tensors["w"].shape
      ({'general.name': 'str', 'toy.sizes': '[i32]'}, (2, 3))
    """
    with located(path):
        _write(path, metadata, tensors, types or {}, version)


class _Entry(NamedTuple):
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    nbytes: int
    value: Any


def _write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Any],
    types: Mapping[str, str],
    version: int,
) -> None:
    if version not in VERSIONS:
        raise GGUFError(f"version {version!r} cannot be written; give one of {VERSIONS}")
    alignment = _alignment(metadata)
    entries = [_entry(name, value) for name, value in tensors.items()]
    head = bytearray(MAGIC + struct.pack("<IQQ", version, len(entries), len(metadata)))
    for key, value in metadata.items():
        kind = "u32" if key == "general.alignment" else types.get(key)
        head += encoded_string(key, "a metadata key") + encoded_value(key, value, kind)
    offset = 0
    for entry in entries:
        dims = tuple(reversed(entry.shape))
        head += encoded_string(entry.name, "a tensor's name")
        head += struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, entry.kind.code, offset)
        offset += _padded(entry.nbytes, alignment)
    with replaced(path) as stream:
        stream.write(head)
        stream.write(bytes(-len(head) % alignment))
        for entry in entries:
            _write_data(stream, entry)
            stream.write(bytes(-entry.nbytes % alignment))


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(name, str) or not name:
        raise GGUFError(f"a tensor is named {name!r}; a text is needed")
    if isinstance(value, GGUFTensor):
        entry = _Entry(name, value.shape, value.kind, value.nbytes, value)
    elif isinstance(value, QuantizedTensor):
        kind = BY_NAME[value.format]
        shape = tuple(int(size) for size in value.shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) // kind.block * kind.nbytes
        entry = _Entry(name, shape, kind, nbytes, value)
    else:
        value = value if hasattr(value, "dtype") else np.asarray(value)
        kind = _plain_type(name, value.dtype)
        entry = _Entry(name, tuple(value.shape), kind, value.size * kind.nbytes, value)
    if 0 in entry.shape or len(entry.shape) > MAX_DIMENSIONS:
        raise GGUFError(
            f"tensor {name!r} has shape {entry.shape}; {MAX_DIMENSIONS} axes of one or more are possible",
            name,
        )
    return entry


def _plain_type(name: str, dtype: np.dtype) -> TensorType:
    for kind in BY_NAME.values():
        if kind.dtype is not None and kind.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("="):
            return kind
    raise GGUFError(f"tensor {name!r} has dtype {dtype}, which GGUF does not have; cast it to float32", name)


def _write_data(stream: BinaryIO, entry: _Entry) -> None:
    if isinstance(entry.value, GGUFTensor):
        raw = entry.value.raw()
    elif isinstance(entry.value, QuantizedTensor):
        raw = _bytes_of(entry.name, entry.value)
    else:
        array = np.asarray(entry.value)
        raw = np.ascontiguousarray(array, dtype=entry.kind.dtype).reshape(-1).view(np.uint8)
    if raw.size != entry.nbytes:
        raise GGUFError(f"tensor {entry.name!r} has {raw.size} bytes, {entry.nbytes} are needed", entry.name)
    stream.write(raw.data)


def _bytes_of(name: str, value: QuantizedTensor) -> np.ndarray:
    try:
        return np.ascontiguousarray(value.to_bytes())
    except ValueError as error:  # of a stack, whose planes have an axis more
        raise GGUFError(
            f"tensor {name!r} has planes that do not fit its shape {value.shape}; write the matrices of a "
            "stack one by one",
            name,
        ) from error


def _alignment(metadata: Mapping[Any, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    whole = isinstance(alignment, int | np.integer) and not isinstance(alignment, bool)
    if not whole or alignment < 1 or alignment & (alignment - 1) or alignment >= 1 << 31:
        raise GGUFError(f"general.alignment is {alignment!r}; a power of two is needed")
    return int(alignment)


def _padded(count: int, alignment: int) -> int:
    return -(-count // alignment) * alignment
