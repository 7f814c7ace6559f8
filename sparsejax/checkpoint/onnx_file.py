"""The weights inside an ``.onnx`` file: its named initializers, read without onnx and without its graph.

Only what is needed of protobuf's wire format is read: a model (field 7: graph), a graph (field 5:
initializers) and a tensor (1: dimensions, 2: element type, 4, 9, 10: values, 8: name). Every length is
checked against what holds it before it is followed, values are views of the memory-mapped file, and nothing
outside the file is ever opened.

Source: the wire format of Protocol Buffers and the field numbers of ONNX's own ``onnx.proto``.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    TruncatedFileError,
    UnknownFormatError,
    UnsupportedTensorError,
    file_name,
)
from sparsejax.checkpoint.readable import mapped, opened
from sparsejax.checkpoint.torch_format.storages import (
    MAX_DIMENSIONS,
    Storage,
    StorageHandle,
    TensorRef,
    tensor_ref,
)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VERSION_TAG = 0x08  # field 1 of a model, which every writer puts first: the version of the format
_SECOND_TAGS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"  # what may follow it
_DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    16: np.dtype(ml_dtypes.bfloat16),
}
_PACKED = {4: np.dtype(np.float32), 10: np.dtype(np.float64)}  # fields whose packed values are raw bytes too
_ELSEWHERE = {3: "in segments", 13: "in another file"}
_PARAMETER = re.compile(r"[A-Za-z_]\w{0,99}(?:\.\w{1,100}){1,20}", re.ASCII)


class _Field(NamedTuple):
    """One field of a message: its number, its wire type, and its value or where its bytes are."""

    number: int
    wire: int
    value: int
    start: int
    stop: int


def is_onnx(path: str | PathLike[str]) -> bool:
    """Whether a file begins as an ONNX model does: with a small version number and a known field after it.

    Example:
      >>> is_onnx("checkpoints/ultra_sparse_sine.pt")
      False
    """
    with open(path, "rb") as stream:
        head = stream.read(3)
    return len(head) == 3 and head[0] == _VERSION_TAG and 0 < head[1] < 0x80 and head[2] in _SECOND_TAGS


def read_initializers(path: str | PathLike[str]) -> dict[str, TensorRef]:
    """The initializers that are named as parameters of a torch module, such as ``"embedding.weight"``.

    What else the graph holds (its nodes, constants such as ``"/model/Constant_3"`` and folded weights such as
    ``"onnx::MatMul_12"``) belongs to its computation and is left alone.

    Args:
      path: an ``.onnx`` file, already known to be readable.

    Returns:
      lazy arrays by name, in the file's order; they view the memory-mapped file.

    Raises:
      NotReadableError: the file cannot be opened, or mapped into memory.
      TruncatedFileError: it ends before its records do.
      CorruptFileError: its records contradict each other.
      UnsupportedTensorError: a parameter lies outside the file, or has a type that is not read here.
      UnknownFormatError: no initializer is named as a parameter.
    """
    with opened(Path(path)) as stream:
        file = mapped(stream, Path(path))
    found: dict[str, TensorRef] = {}
    graph = _graph(file)
    for field in _fields(file, graph.start, graph.stop):
        if field.number != 5:
            continue
        tensor = _Tensor.read(file, _message(field, "an initializer"))
        if _PARAMETER.fullmatch(tensor.name) is None:
            continue
        if tensor.name in found:
            raise CorruptFileError(f"two initializers have the name {tensor.name!r}")
        found[tensor.name] = tensor.reference(file, file_name(path))
    if not found:
        raise UnknownFormatError("no initializer of the ONNX graph is named as a parameter of a torch module")
    return found


class _Tensor(NamedTuple):
    """What a tensor message says of itself."""

    name: str
    dtype_code: int
    shape: tuple[int, ...]
    values: tuple[_Field, ...]
    unread: str | None

    @classmethod
    def read(cls, file: mmap.mmap, message: _Field) -> _Tensor:
        """Takes a tensor message apart."""
        name, code, unread = "", 0, None
        shape: list[int] = []
        values: list[_Field] = []
        for field in _fields(file, message.start, message.stop):
            if field.number == 1:
                shape += _dimensions(file, field)
                if len(shape) > MAX_DIMENSIONS:
                    raise CorruptFileError(f"an initializer has more than {MAX_DIMENSIONS} dimensions")
            elif field.number == 2 and field.wire == _VARINT:
                code = field.value
            elif field.number == 8:
                name = _text(file, _message(field, "the name of an initializer"))
            elif field.number == 9 or field.number in _PACKED:
                values += [field] if len(values) < 2 else []  # two are too many already
            elif field.number in _ELSEWHERE or (field.number == 14 and field.value):
                unread = _ELSEWHERE.get(field.number, _ELSEWHERE[13])
        return cls(name, code, tuple(shape), tuple(values), unread)

    def reference(self, file: mmap.mmap, where: str) -> TensorRef:
        """The tensor as a view of the file, after checking that its values fill its shape."""
        if self.unread:
            raise UnsupportedTensorError(
                f"{self.name!r} keeps its values {self.unread}; export the model into one file"
            )
        if self.dtype_code not in _DTYPES:
            raise UnsupportedTensorError(
                f"{self.name!r} has the ONNX element type {self.dtype_code}; real numbers are needed"
            )
        dtype = _DTYPES[self.dtype_code]
        empty = _Field(9, _BYTES, 0, 0, 0)
        if len(self.values) > 1:
            raise CorruptFileError(f"{self.name!r} holds its values more than once, or unpacked")
        values = _message(self.values[0] if self.values else empty, f"the values of {self.name!r}")
        if _PACKED.get(values.number, dtype) != dtype:
            raise CorruptFileError(f"{self.name!r} holds its {dtype} values in the field of another type")
        nbytes = values.stop - values.start
        if math.prod(self.shape) * dtype.itemsize != nbytes:
            raise CorruptFileError(
                f"{self.name!r} holds {nbytes} bytes, which do not fill its shape {str(self.shape)[:80]}"
            )
        storage = Storage(self.name, file, values.start, nbytes, False, where)
        strides = tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        try:
            return tensor_ref(StorageHandle(storage, dtype, 0, nbytes), 0, self.shape, strides, dtype)
        except ValueError as error:
            raise CorruptFileError(f"{self.name!r}: {error}") from error


def _graph(file: mmap.mmap) -> _Field:
    graphs = [field for field in _fields(file, 0, len(file), TruncatedFileError) if field.number == 7]
    if len(graphs) != 1:
        raise CorruptFileError(f"an ONNX model has one graph; this one has {len(graphs)}")
    return _message(graphs[0], "the graph")


def _fields(
    file: mmap.mmap, start: int, stop: int, too_short: type[Exception] = CorruptFileError
) -> Iterator[_Field]:
    """The fields of the message between two bytes of the file."""
    at = start
    while at < stop:
        tag, at = _varint(file, at, stop, too_short)
        number, wire = tag >> 3, tag & 7
        value = size = 0
        if number == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise CorruptFileError(f"no ONNX record begins at byte {at}; fetch or export the file again")
        if wire == _VARINT:
            value, at = _varint(file, at, stop, too_short)
        elif wire == _BYTES:
            size, at = _varint(file, at, stop, too_short)
        else:
            size = 8 if wire == _FIXED64 else 4
        if size > stop - at:
            raise too_short(
                f"field {number} at byte {at} claims {size} bytes, {stop - at} are left; fetch the file again"
            )
        yield _Field(number, wire, value, at, at + size)
        at += size


def _varint(file: mmap.mmap, at: int, stop: int, too_short: type[Exception]) -> tuple[int, int]:
    """An unsigned number of at most 64 bits, and the byte after it."""
    value = 0
    for place in range(10):
        if at + place >= stop:
            raise too_short(f"the number at byte {at} is cut off; fetch the file again")
        byte = file[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + place + 1
    raise CorruptFileError(f"the number at byte {at} has more than 64 bits; fetch the file again")


def _message(field: _Field, what: str) -> _Field:
    if field.wire != _BYTES:
        raise CorruptFileError(f"{what} is no run of bytes (wire type {field.wire})")
    return field


def _dimensions(file: mmap.mmap, field: _Field) -> list[int]:
    """One dimension, or several packed into one field."""
    if field.wire == _VARINT:
        return [field.value]
    found: list[int] = []
    at = _message(field, "the shape of an initializer").start
    while at < field.stop and len(found) <= MAX_DIMENSIONS:
        value, at = _varint(file, at, field.stop, CorruptFileError)
        found.append(value)
    return found


def _text(file: mmap.mmap, field: _Field) -> str:
    try:
        return file[field.start : field.stop].decode()
    except UnicodeDecodeError:
        raise CorruptFileError("the name of an initializer is no UTF-8 text") from None
