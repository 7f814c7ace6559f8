"""Units of layers in a file, all numbers of a unit side by side, so that one read fetches it.

::

  8 bytes   "SJNEURON"
  u32       version, 1
  u32       bytes of the header
  header    JSON: {"layers": [{"layout", "offset", "bias": {"offset", "shape", "dtype"} or null}], "nbytes"}
  ...       biases, then by layer the units one after the other, each layer's start a multiple of 64

Numbers are little-endian. Units are read by position with the file's size looked at again, and not through a
map, in which a file that somebody shortens ends the process.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    ExportError,
    NotReadableError,
    TruncatedFileError,
    file_name,
)
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.models.sparse_inference.store.memory import bias_of
from sparsejax.models.sparse_inference.store.units import (
    UnitLayout,
    checked_dtype,
    from_json,
    to_json,
    unit_arrays,
    unit_layout,
)
from sparsejax.ops.sparse_ffn import FFNWeights

MAGIC = b"SJNEURON"
VERSION = 1
_ALIGNMENT = 64
_START = struct.Struct("<8sII")
_CHUNK = 16 << 20
_MOST_LAYERS = 1 << 16


def write_neurons(
    path: str | os.PathLike[str], layers: Sequence[FFNWeights], *, unit: int | None = None
) -> None:
    """Write the neurons of layers, all or nothing.

    Args:
      path: of the file; replaced in one step.
      layers: weights as `unit_layout` takes them.
      unit: neurons that are read as one; None is the fewest.

    Raises:
      ValueError: as `unit_layout`.
      ExportError: the file cannot be written.

    Example:
      >>> import tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "layers.neurons")
      >>> write_neurons(path, [FFNWeights(np.ones((8, 4)), np.ones((8, 4)))])
      >>> with NeuronFile(path) as file:
      ...     file.layouts[0].units
      8
    """
    path = Path(path)
    if sys.byteorder != "little":
        raise ExportError(f"{file_name(path)}: neurons are written by little-endian machines only")
    layouts = [unit_layout(layer, unit) for layer in layers]
    header, offsets = _header(layers, layouts)
    with replaced(path) as stream:
        stream.write(_START.pack(MAGIC, VERSION, len(header)) + header)
        for layer, layout, (bias_at, units_at) in zip(layers, layouts, offsets, strict=True):
            if bias_at is not None:
                stream.seek(bias_at)
                stream.write(np.ascontiguousarray(bias_of(layer)).tobytes())
            stream.seek(units_at)
            for record in _records(unit_arrays(layer, layout), layout):
                stream.write(record)


class NeuronFile:
    """An opened file of `write_neurons`; a context manager that closes it.

    Attributes:
      path: as given.
      layouts: by layer.
      biases: by layer, of the output, or None.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Open a file and check that all its parts are there.

        Raises:
          CheckpointError: it is missing, no such file, cut, or its parts contradict each other.
        """
        self.path = Path(path)
        self._where = file_name(self.path)
        try:
            self._file: int | None = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise NotReadableError(f"{self._where}: cannot be opened ({reason})") from error
        try:
            self._stamp = self._look()
            self.layouts, self._offsets, self.biases = self._read_header()
        except CheckpointError:
            self.close()
            raise

    def read(self, layer: int, units: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """As `UnitSource.read`.

        Raises:
          TruncatedFileError: the file is shorter than it was when it was opened.
          CorruptFileError: it was written to in the meantime.
          NotReadableError: it is closed, or the system cannot read it.
        """
        if self._look() != self._stamp:
            raise CorruptFileError(f"{self._where}: was changed while it was in use; open it again")
        size = self.layouts[layer].unit_bytes
        records = np.empty((len(units), size), np.uint8)
        starts = np.flatnonzero(np.diff(units, prepend=-2) != 1)
        for start, stop in zip(starts, [*starts[1:], len(units)], strict=True):
            self._fill(records[start:stop], self._offsets[layer] + int(units[start]) * size)
        position = 0
        for plane, rows in zip(self.layouts[layer].planes, into, strict=True):
            own = rows.reshape(len(units), -1).view(np.uint8)
            own[:] = records[:, position : position + plane.nbytes]
            position += plane.nbytes

    def close(self) -> None:
        """Close the file; again is no error."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> NeuronFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> tuple[int, int]:
        """Size and time of the file; an error if it became shorter."""
        if self._file is None:
            raise NotReadableError(f"{self._where}: is closed")
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise NotReadableError(f"{self._where}: not a regular file")
        if hasattr(self, "_stamp") and status.st_size < self._stamp[0]:
            raise self._shrunk(status.st_size)
        return status.st_size, status.st_mtime_ns

    def _shrunk(self, size: int) -> TruncatedFileError:
        return TruncatedFileError(
            f"{self._where}: shrank from {self._stamp[0]} to {size} bytes while it was in use; write it again"
        )

    def _fill(self, target: np.ndarray, position: int) -> None:
        view = memoryview(target.reshape(-1))  # type: ignore[arg-type]
        assert self._file is not None
        while view:
            try:
                done = os.preadv(self._file, [view[:_CHUNK]], position)
            except OSError as error:
                raise NotReadableError(f"{self._where}: cannot be read ({error.strerror})") from error
            if not done:
                raise self._shrunk(position)
            view, position = view[done:], position + done

    def _bytes(self, position: int, count: int, what: str) -> np.ndarray:
        if position < 0 or count < 0 or position + count > self._stamp[0]:
            raise TruncatedFileError(
                f"{self._where}: {what} needs bytes {position} to {position + count}, the file has "
                f"{self._stamp[0]}; write it again"
            )
        found = np.empty(count, np.uint8)
        self._fill(found, position)
        return found

    def _read_header(self) -> tuple[tuple[UnitLayout, ...], list[int], tuple[np.ndarray | None, ...]]:
        start = self._bytes(0, min(_START.size, self._stamp[0]), "the start").tobytes()
        if start[: len(MAGIC)] != MAGIC:
            raise NotReadableError(f"{self._where}: not a file of neurons (it does not begin with SJNEURON)")
        if len(start) < _START.size:
            raise TruncatedFileError(f"{self._where}: ends inside its first {_START.size} bytes")
        _, version, size = _START.unpack(start)
        if version != VERSION:
            raise NotReadableError(f"{self._where}: has version {version}; this library reads {VERSION}")
        raw = self._bytes(_START.size, size, "the header").tobytes()
        try:
            header = json.loads(raw)
            if int(header["nbytes"]) > self._stamp[0]:
                raise TruncatedFileError(
                    f"{self._where}: has {self._stamp[0]} bytes of {header['nbytes']}; write it again"
                )
            parts = header["layers"]
            if not isinstance(parts, list) or not 0 < len(parts) <= _MOST_LAYERS:
                raise ValueError("no list of layers")
            layers = [self._layer(part, number) for number, part in enumerate(parts)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptFileError(f"{self._where}: the header is damaged ({error})") from error
        layouts, offsets, biases = zip(*layers, strict=True)
        return layouts, list(offsets), biases

    def _layer(self, part: Any, number: int) -> tuple[UnitLayout, int, np.ndarray | None]:
        layout = from_json(part["layout"], self._stamp[0])
        offset, end = part["offset"], layout.units * layout.unit_bytes
        if type(offset) is not int or offset < _START.size or offset + end > self._stamp[0]:
            raise ValueError(f"the units of layer {number} lie outside the file")
        if part["bias"] is None:
            return layout, offset, None
        shape, dtype = tuple(part["bias"]["shape"]), checked_dtype(part["bias"]["dtype"])
        (width,) = shape
        if type(width) is not int or not 0 < width < 1 << 31:
            raise ValueError(f"the bias of layer {number} has shape {shape}")
        raw = self._bytes(int(part["bias"]["offset"]), width * dtype.itemsize, f"the bias of layer {number}")
        return layout, offset, raw.view(dtype)


def _header(
    layers: Sequence[FFNWeights], layouts: Sequence[UnitLayout]
) -> tuple[bytes, list[tuple[int | None, int]]]:
    """The JSON text, padded to a fixed size, and where each layer's bias and units begin."""
    biases = [bias_of(layer) for layer in layers]
    room = 1 << 12
    while True:
        position, offsets, parts = _START.size + room, [], []
        for layout, bias in zip(layouts, biases, strict=True):
            bias_at, described = None, None
            if bias is not None:
                bias_at = _aligned(position)
                position = bias_at + bias.nbytes
                described = {"offset": bias_at, "shape": list(bias.shape), "dtype": bias.dtype.name}
            units_at = _aligned(position)
            position = units_at + layout.units * layout.unit_bytes
            offsets.append((bias_at, units_at))
            parts.append({"layout": to_json(layout), "offset": units_at, "bias": described})
        text = json.dumps({"layers": parts, "nbytes": position}).encode()
        if len(text) <= room:
            return text.ljust(room), offsets
        room = 1 << (len(text) - 1).bit_length()


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _records(arrays: Sequence[np.ndarray], layout: UnitLayout) -> Iterator[bytes]:
    """The bytes of some units after the other, planes side by side."""
    step = max(1, _CHUNK // layout.unit_bytes)
    for start in range(0, layout.units, step):
        parts = [array[start : start + step] for array in arrays]
        flat = [np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8) for part in parts]
        yield np.concatenate(flat, axis=1).tobytes()
