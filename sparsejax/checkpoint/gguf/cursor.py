"""Reads the head of a file from front to back; nothing is allocated for bytes that are not there."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import GGUFError, TruncatedGGUFError
from sparsejax.checkpoint.gguf.open_file import OpenFile
from sparsejax.checkpoint.gguf.string_array import StringArray

MAX_HEAD = 1 << 28
"""Bytes that metadata and tensor table may take: ten times what the largest vocabularies need."""

_CHUNK = 1 << 20
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in a file's head. Every read names what it is for, so that errors can.

    Attributes:
      file: the file.
      at: the byte to be read next.
    """

    def __init__(self, file: OpenFile):
        self.file = file
        self.at = 0
        self._data = bytearray()

    def require(self, count: int, what: str) -> None:
        """Refuses to go on unless ``count`` more bytes are there.

        Raises:
          TruncatedGGUFError: they are not.
        """
        left = self.file.size - self.at
        if count > left:
            raise TruncatedGGUFError(
                f"{what} at byte {self.at} needs {count} bytes, {left} are left; fetch the file again",
                offset=self.at,
            )

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes."""
        start = self._advance(count, what)
        return bytes(self._data[start : self.at])

    def u32(self, what: str) -> int:
        """An unsigned number of 4 bytes."""
        number: int = _U32.unpack_from(self._data, self._advance(4, what))[0]
        return number

    def u64(self, what: str) -> int:
        """An unsigned number of 8 bytes."""
        number: int = _U64.unpack_from(self._data, self._advance(8, what))[0]
        return number

    def number(self, layout: struct.Struct, what: str) -> Any:
        """A number of the given layout."""
        return layout.unpack_from(self._data, self._advance(layout.size, what))[0]

    def string(self, what: str) -> str:
        """A text with its length before it.

        Raises:
          GGUFError: it is no UTF-8.
        """
        size = self.u64(f"the length of {what}")
        at = self.at
        try:
            return self.take(size, what).decode()
        except UnicodeDecodeError as error:
            raise GGUFError(f"{what} at byte {at} is no UTF-8 text", offset=at) from error

    def strings(self, count: int, what: str) -> StringArray:
        """So many texts, found but not decoded: of 128,000 in some hundredths of a second.

        Raises:
          GGUFError: one of them is no UTF-8.
        """
        self.require(8 * count, what)  # each has its length at least
        start = at = self.at
        data, unpack = self._data, _U64.unpack_from
        ends = array("q")
        for _ in range(count):
            if at + 8 > len(data):
                self._reach(at, 8, f"the length of a string of {what}")
            size = unpack(data, at)[0]
            if at + 8 + size > len(data):
                self._reach(at + 8, size, f"a string of {what}")
            at += 8 + size
            ends.append(at)
        self.at = at
        stops = np.frombuffer(ends, np.int64) - start if count else np.empty(0, np.int64)
        return StringArray.from_records(bytes(data[start:at]), stops, what, start)

    def align(self, alignment: int) -> int:
        """The next multiple of ``alignment``."""
        return -(-self.at // alignment) * alignment

    def _advance(self, count: int, what: str) -> int:
        start = self.at
        if start + count > len(self._data):
            self._fill(start + count, what)
        self.at = start + count
        return start

    def _reach(self, start: int, count: int, what: str) -> None:
        self.at = start
        self._fill(start + count, what)

    def _fill(self, stop: int, what: str) -> None:
        """Reads on until the first ``stop`` bytes are there."""
        self.require(stop - self.at, what)
        if stop > MAX_HEAD:
            raise GGUFError(
                f"{what} at byte {self.at} reaches beyond {MAX_HEAD} bytes of metadata, which no model has",
                offset=self.at,
            )
        have = len(self._data)
        more = bytearray(min(max(stop, have + _CHUNK), self.file.size, MAX_HEAD) - have)
        with memoryview(more) as target:
            self.file.read_into(target, have, what)
        self._data += more
