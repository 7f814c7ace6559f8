"""A pickle protocol 2 emitter for the values that torch.load(weights_only=True) reads back."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

LONGEST_INT = 255  # bytes that one LONG1 opcode can hold
BATCH = 1000  # items set at once, as Python's own pickler does


class PickleWriter:
    """Emits opcodes; knows the format and no torch type.

    What is emitted by `text`, `name` and whatever `remember` is told of is written once and then
    referred to.
    """

    def __init__(self) -> None:
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[object, int] = {}

    def finish(self) -> bytes:
        """The pickle, ended."""
        return bytes(self._out) + b"."

    def recall(self, key: object) -> bool:
        """Refers to what was remembered under ``key``, if anything was."""
        index = self._memo.get(key)
        if index is None:
            return False
        self._indexed(b"h", b"j", index)
        return True

    def remember(self, key: object) -> None:
        """Remembers the value just emitted."""
        self._memo[key] = index = len(self._memo)
        self._indexed(b"q", b"r", index)

    def _indexed(self, short: bytes, long: bytes, index: int) -> None:
        self._out += short + bytes([index]) if index < 256 else long + struct.pack("<I", index)

    def raw(self, opcode: bytes) -> None:
        """Emits an opcode without argument."""
        self._out += opcode

    def constant(self, value: None | bool) -> None:
        """Emits None, True or False."""
        self._out += {None: b"N", True: b"\x88", False: b"\x89"}[value]

    def integer(self, value: int) -> None:
        """Emits an int of at most `LONGEST_INT` bytes, which the survey has seen to."""
        if 0 <= value < 1 << 8:
            self._out += b"K" + bytes([value])
        elif 0 <= value < 1 << 16:
            self._out += b"M" + struct.pack("<H", value)
        elif -(1 << 31) <= value < 1 << 31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            count = value.bit_length() // 8 + 1
            self._out += b"\x8a" + bytes([count]) + value.to_bytes(count, "little", signed=True)

    def floating(self, value: float) -> None:
        """Emits a float."""
        self._out += b"G" + struct.pack(">d", value)

    def text(self, value: str) -> None:
        """Emits a str."""
        key = ("text", value)
        if self.recall(key):
            return
        raw = value.encode("utf-8", "surrogatepass")
        self._out += b"X" + struct.pack("<I", len(raw)) + raw
        self.remember(key)

    def name(self, module: str, name: str) -> None:
        """Emits a reference to a global."""
        key = ("global", module, name)
        if self.recall(key):
            return
        self._out += f"c{module}\n{name}\n".encode("ascii")
        self.remember(key)

    def close_tuple(self, count: int) -> None:
        """Makes a tuple of the last ``count`` values; above three, a mark must stand before them."""
        self._out += {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(count, b"t")

    def batches(self, items: Iterable[Item], one: bytes, many: bytes) -> Iterator[Item]:
        """Yields items to emit, and puts each batch of them into the container below."""
        batch = list(items)
        for low in range(0, len(batch), BATCH):
            part = batch[low : low + BATCH]
            if len(part) > 1:
                self._out += b"("
            yield from part
            self._out += many if len(part) > 1 else one
