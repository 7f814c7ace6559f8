"""Reads the head of a GGUF file, trusting nothing in it.

Every count and size is compared with the bytes that are left before anything is allocated for it, and what
contradicts itself is refused with its name and its byte.

Source: the GGUF specification (ggml/docs/gguf.md), specs/sparse_inference.md section 6.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.checkpoint.errors import GGUFError, TruncatedGGUFError
from sparsejax.checkpoint.gguf.cursor import Cursor
from sparsejax.checkpoint.gguf.gguf_file import GGUFFile
from sparsejax.checkpoint.gguf.open_file import OpenFile
from sparsejax.checkpoint.gguf.refusals import refusal
from sparsejax.checkpoint.gguf.tensor import GGUFTensor
from sparsejax.checkpoint.gguf.tensor_types import REMOVED, TYPES, TensorType
from sparsejax.checkpoint.gguf.value_types import ARRAY, BOOL, NUMBERS, STRING
from sparsejax.checkpoint.readable import located

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MOST = 1 << 20
"""Tensors, and metadata entries, that a file may have."""

_LEAST_ENTRY = 8 + 4 + 1  # length of the key, type, value
_LEAST_TENSOR = 8 + 4 + 4 + 8  # length of the name, number of dimensions, type, offset
_LONGEST_KEY = (1 << 16) - 1
_OTHER_MAGICS = {
    b"PWRI": "a PowerInfer model, whose layout differs from GGUF's: convert the original model to GGUF",
    b"ggjt": "of the older GGJT format: convert the original model to GGUF",
    b"ggla": "a LoRA adapter of an older format: convert it to GGUF",
    b"lmgg": "of the older GGML format: convert the original model to GGUF",
    b"PK\x03\x04": "a zip or torch file: load it by its own name, ending in .pt",
    b"vers": "perhaps a Git LFS pointer: fetch the real file with 'git lfs pull'",
}


def read_gguf(path: str | os.PathLike[str], *, strict: bool = True) -> GGUFFile:
    """The head of a GGUF file: its metadata, and its tensors, which are read when they are asked for.

    Tensors are read by position, with the file's size compared each time, and never through a memory map: a
    file that shrinks meanwhile gives an error. Other processes may replace the file by another.

    Args:
      path: a little-endian ``.gguf`` file of version 2 or 3.
      strict: refuse what no model here can use: types that are not decoded (IQ*, MXFP4, ...), parts of split
        models, mixtures of experts. Otherwise the reason is in ``problem``, and only such tensors raise.

    Returns:
      `GGUFFile`.

    Raises:
      GGUFError: the file is damaged, hostile, not GGUF or not usable; names the tensor and the byte.
      NotReadableError: there is no such file, or it cannot be opened.

    Example:
      >>> import os, tempfile
      >>> from sparsejax.checkpoint.gguf import write_gguf
      >>> from sparsejax.ops.quantized import QuantizedTensor
      >>> path = os.path.join(tempfile.mkdtemp(), "w.gguf")
      >>> weights = QuantizedTensor.quantize(np.ones((4, 32)), "q4_0")
      >>> write_gguf(path, {"llama.block_count": 2}, {"w": weights})
      >>> file = read_gguf(path)
      >>> file.metadata["llama.block_count"], file.tensors["w"].format, file.tensors["w"].shape
      (2, 'q4_0', (4, 32))
    """
    with located(path):
        file = _read(OpenFile(path))
        if strict and file.problem is not None:
            raise file.problem
        return file


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file is to be read as GGUF, by its first bytes or its name."""
    if Path(path).suffix.lower() == ".gguf":
        return True
    with open(path, "rb") as stream:
        return stream.read(4) in (MAGIC, b"PWRI")


def _read(file: OpenFile) -> GGUFFile:
    cursor = Cursor(file)
    version = _version(cursor)
    tensor_count = _count(cursor, "tensors", _LEAST_TENSOR)
    entry_count = _count(cursor, "metadata entries", _LEAST_ENTRY)
    metadata, types = _metadata(cursor, entry_count)
    alignment = _alignment(metadata, types)
    cursor.require(tensor_count * _LEAST_TENSOR, f"the table of {tensor_count} tensors")
    table = [_tensor_info(cursor, f"tensor {number} of {tensor_count}") for number in range(tensor_count)]
    _check_names(table)
    data_offset = cursor.align(alignment)
    tensors = {info.name: _tensor(info, data_offset, alignment, file) for info in table}
    _check_overlaps(tensors)
    problem = refusal(metadata, tensors)
    return GGUFFile(file.path, version, alignment, data_offset, metadata, types, tensors, problem)


def _version(cursor: Cursor) -> int:
    if cursor.file.size == 0:
        raise TruncatedGGUFError("an empty file; fetch or save it again", offset=0)
    magic = cursor.take(4, "the magic number")
    if magic != MAGIC:
        what = _OTHER_MAGICS.get(magic, "no GGUF file; give one")
        raise GGUFError(f"begins with {magic!r} at byte 0, not {MAGIC!r}: it is {what}", offset=0)
    version = cursor.u32("the version")
    if version and not version & 0xFFFF:
        raise GGUFError(
            f"version {version} at byte 4 is big-endian; convert the file to little-endian "
            "(gguf_convert_endian.py of llama.cpp)",
            offset=4,
        )
    if version not in VERSIONS:
        raise GGUFError(
            f"version {version} at byte 4 is not read; versions 2 and 3 are: convert the model again",
            offset=4,
        )
    return version


def _count(cursor: Cursor, what: str, least: int) -> int:
    at = cursor.at
    count = cursor.u64(f"the number of {what}")
    if count > MOST and count * least <= cursor.file.size - cursor.at:
        raise GGUFError(f"claims {count} {what} at byte {at}; no model has more than {MOST}", offset=at)
    if count * least > cursor.file.size - cursor.at:
        raise TruncatedGGUFError(
            f"claims {count} {what} at byte {at}, {cursor.file.size - cursor.at} bytes are left; "
            "fetch the file again",
            offset=at,
        )
    return count


# Metadata


def _metadata(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, str]]:
    metadata: dict[str, Any] = {}
    types: dict[str, str] = {}
    for number in range(count):
        at = cursor.at
        key = cursor.string(f"the key of metadata entry {number} of {count}")
        if key in metadata or not key or len(key) > _LONGEST_KEY:
            reason = "occurs twice" if key in metadata else "is empty or too long"
            raise GGUFError(f"the metadata key {key[:80]!r} at byte {at} {reason}", offset=at)
        types[key], metadata[key] = _value(cursor, f"the value of {key[:80]!r}")
    return metadata, types


def _value(cursor: Cursor, what: str) -> tuple[str, Any]:
    at = cursor.at
    code = cursor.u32(f"the type of {what}")
    if code == STRING:
        return "str", cursor.string(what)
    if code == ARRAY:
        return _array(cursor, what)
    number = NUMBERS.get(code)
    if number is None:
        raise GGUFError(f"{what} has the unknown type {code} at byte {at}", offset=at)
    value = cursor.number(number.layout, what)
    if code == BOOL:
        _check_bools(np.array([value]), what, cursor.at - 1)
        value = bool(value)
    return number.name, value


def _array(cursor: Cursor, what: str) -> tuple[str, Any]:
    at = cursor.at
    code = cursor.u32(f"the element type of {what}")
    count = cursor.u64(f"the length of {what}")
    if code == STRING:
        return "[str]", cursor.strings(count, what)
    number = NUMBERS.get(code)
    if number is None:
        kind = (
            "are arrays themselves, which is not read" if code == ARRAY else f"have the unknown type {code}"
        )
        raise GGUFError(f"the elements of {what} {kind} (byte {at})", offset=at)
    start = cursor.at
    raw = cursor.take(count * number.layout.size, what)
    values = np.frombuffer(raw, number.dtype).astype(number.dtype.newbyteorder("="), copy=False)
    if code == BOOL:
        _check_bools(values, what, start)
        values = values.view(np.bool_)
    return f"[{number.name}]", values


def _check_bools(values: np.ndarray, what: str, offset: int) -> None:
    if np.any(values > 1):
        raise GGUFError(
            f"{what} at byte {offset} is a bool, which is 0 or 1, not {values.max()}", offset=offset
        )


def _alignment(metadata: dict[str, Any], types: dict[str, str]) -> int:
    alignment: int = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    told = types.get("general.alignment", "u32")
    if told != "u32" or alignment < 1 or alignment & (alignment - 1):
        raise GGUFError(
            f"general.alignment is {str(alignment)[:80]} ({told}); a power of two (u32) is needed"
        )
    return alignment


# Tensors


class _Info(NamedTuple):
    """A line of the tensor table, and the byte at which it begins."""

    name: str
    dims: tuple[int, ...]
    kind: TensorType
    offset: int
    at: int

    def fault(self, reason: str, kind: type[GGUFError] = GGUFError) -> GGUFError:
        """The error for this tensor."""
        return kind(f"tensor {self.name[:80]!r} (table at byte {self.at}): {reason}", self.name, self.at)


def _tensor_info(cursor: Cursor, what: str) -> _Info:
    at = cursor.at
    name = cursor.string(f"the name of {what}")
    what = f"tensor {name[:80]!r}"
    try:
        count = cursor.u32(f"the number of dimensions of {what}")
        if count > MAX_DIMENSIONS:
            reason = f"has {count} dimensions, {MAX_DIMENSIONS} are possible"
            raise GGUFError(f"{what} at byte {at} {reason}", name, at)
        dims = tuple(cursor.u64(f"the dimensions of {what}") for _ in range(count))
        code = cursor.u32(f"the type of {what}")
        offset = cursor.u64(f"the offset of {what}")
    except GGUFError as error:
        error.tensor = name
        raise
    return _Info(name, dims, _type(code, what, name, at), offset, at)


def _type(code: int, what: str, name: str, at: int) -> TensorType:
    kind = TYPES.get(code)
    if kind is None:
        reason = f"the unknown type {code}"
        if code in REMOVED:
            reason = f"the type {REMOVED[code].upper()} ({code}), which was removed from the format"
        raise GGUFError(f"{what} at byte {at} has {reason}; convert or requantise the model again", name, at)
    return kind


def _check_names(table: list[_Info]) -> None:
    first: dict[str, int] = {}
    for info in table:
        if not info.name:
            raise info.fault("has no name")
        if info.name in first:
            raise info.fault(f"another tensor has this name (table at byte {first[info.name]})")
        first[info.name] = info.at


def _tensor(info: _Info, data_offset: int, alignment: int, file: OpenFile) -> GGUFTensor:
    """The tensor, after checking that it lies in the file."""
    kind = info.kind
    if 0 in info.dims:
        raise info.fault(f"has an empty dimension: {info.dims}")
    row = info.dims[0] if info.dims else 1
    if row % kind.block:
        raise info.fault(
            f"has rows of {row} numbers, which are no whole blocks of {kind.block} ({kind.name})"
        )
    if info.offset % alignment:
        raise info.fault(f"begins at {info.offset} of the data, which is no multiple of {alignment}")
    nbytes = math.prod(info.dims) // kind.block * kind.nbytes
    start = data_offset + info.offset
    if start + nbytes > file.size:
        needs = f"needs bytes {start} to {start + nbytes} for {info.dims} numbers of {kind.name}"
        raise info.fault(f"{needs}, the file ends at {file.size}; fetch it again", TruncatedGGUFError)
    return GGUFTensor(info.name, tuple(reversed(info.dims)), kind, start, file)


def _check_overlaps(tensors: dict[str, GGUFTensor]) -> None:
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise GGUFError(
                f"tensor {after.name[:80]!r} at byte {after.offset} overlaps {before.name[:80]!r}, which has"
                f" bytes {before.offset} to {before.offset + before.nbytes}",
                after.name,
                after.offset,
            )
