"""One tensor of a GGUF file: known from the file's head, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf.open_file import OpenFile
from sparsejax.checkpoint.gguf.tensor_types import READ, TensorType
from sparsejax.checkpoint.torch_format.storages import aligned_empty
from sparsejax.ops.quantized import FORMATS, QuantizedTensor, decode
from sparsejax.ops.quantized.planes import Order


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """A tensor of an open file.

    Attributes:
      name: as the file has it.
      shape: in NumPy's order, rows last; GGUF's own is the reverse.
      kind: how its numbers are stored.
      offset: first byte in the file.
      file: that it lies in; open as long as one of its tensors is kept.

    Example:
      >>> import os, tempfile
      >>> from sparsejax.checkpoint.gguf import read_gguf, write_gguf
      >>> path = os.path.join(tempfile.mkdtemp(), "w.gguf")
      >>> write_gguf(path, {}, {"w": np.arange(6, dtype=np.float16).reshape(2, 3)})
      >>> tensor = read_gguf(path).tensors["w"]
      >>> tensor.format, tensor.shape, tensor.nbytes
      ('f16', (2, 3), 12)
      >>> tensor.dequantize()
      array([[0., 1., 2.],
             [3., 4., 5.]], dtype=float32)
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    offset: int
    file: OpenFile

    @property
    def format(self) -> str:
        """Name of the format, such as "q4_0" or "f32"."""
        return self.kind.name

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.size // self.kind.block * self.kind.nbytes

    @property
    def dtype(self) -> np.dtype:
        """Of `view` of plain numbers; float32, which `dequantize` gives, for blocks."""
        return np.dtype(np.float32) if self.kind.dtype is None else self.kind.dtype.newbyteorder("=")

    def raw(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The bytes of its rows as the file has them, read anew.

        Args:
          start: first row, where the leading axis counts rows; of a vector or number, there is one.
          stop: row to end before; None is the end.

        Returns:
          uint8 (nbytes,), 64-byte aligned.

        Raises:
          IndexError: there are no such rows.
          GGUFError: the file shrank or was written to since it was opened.
        """
        rows = self.shape[0] if len(self.shape) > 1 else 1
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise IndexError(f"rows {start} to {stop} of {self.name!r}, which has {rows}")
        row_bytes = self.nbytes // rows
        target = aligned_empty(((stop - start) * row_bytes,), np.dtype(np.uint8))
        if target.size:
            offset = self.offset + start * row_bytes
            self.file.read_into(target.data, offset, f"tensor {self.name[:80]!r}", self.name)
        return target

    def dequantize(self) -> np.ndarray:
        """The numbers as float32, in `shape`.

        Raises:
          GGUFError: of a type that is not decoded here, or the file changed.
        """
        raw = self._readable().raw()
        if self.kind.dtype is None or self.format in FORMATS:
            return decode(raw, self.format, self.size).reshape(self.shape)
        return raw.view(self.kind.dtype).astype(np.float32).reshape(self.shape)

    def quantized(self, order: Order = "rows") -> QuantizedTensor:
        """The tensor as the kernels take it: no number of it is changed.

        Args:
          order: of the planes in memory, see `QuantizedTensor`.

        Raises:
          GGUFError: integers or float64, a type that is not decoded here, or the file changed.
        """
        if self._readable().format not in FORMATS:
            raise GGUFError(f"tensor {self.name[:80]!r} holds {self.format} numbers, no weights", self.name)
        return QuantizedTensor.from_bytes(self.raw(), self.format, self.shape, order=order)

    def view(self) -> Any:
        """Plain numbers as an array of their own type, blocks as a `QuantizedTensor`."""
        dtype = self._readable().kind.dtype
        if dtype is None:
            return self.quantized()
        return self.raw().view(dtype).astype(self.dtype, copy=False).reshape(self.shape)

    def _readable(self) -> GGUFTensor:
        if not self.kind.readable:
            raise unreadable(self.name, self.kind, self.offset)
        return self


def unreadable(name: str, kind: TensorType, offset: int) -> GGUFError:
    """The error for a tensor of a type that ggml has and this reader does not."""
    return GGUFError(
        f"tensor {name[:80]!r} at byte {offset} is of type {kind.name.upper()}, which is not supported; "
        f"requantise the model to one of {', '.join(READ)}",
        name,
        offset,
    )
