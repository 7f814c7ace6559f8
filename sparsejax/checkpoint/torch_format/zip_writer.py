"""Writes the stored, aligned zip records of a torch file."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

ALIGNMENT = 64
_CHUNK = 2 << 20
LIMIT32 = 0xFFFFFFFF  # from here on a number goes into a zip64 field
_ELSEWHERE32 = 0xFFFFFFFF
LIMIT16 = 0xFFFF
_ELSEWHERE16 = 0xFFFF
_FLAGS = 0x800  # names are UTF-8
_DATE = 0x21  # 1 January 1980, the first that a zip file can tell


@dataclass(slots=True)
class _Written:
    name: bytes
    crc: int
    nbytes: int
    header: int


class ZipWriter:
    """Writes records one after the other; each starts at a multiple of 64 bytes, as torch's do.

    Args:
      stream: an empty file, open for writing, seekable.
      root: folder of all records.
    """

    def __init__(self, stream: BinaryIO, root: str):
        self.stream = stream
        self.root = root
        self.records: list[_Written] = []

    def add(self, name: str, content: bytes | memoryview) -> None:
        """Writes a record."""
        entry = _Written(f"{self.root}/{name}".encode(), 0, len(content), self.stream.tell())
        self.stream.write(_local_header(entry))
        for low in range(0, len(content), _CHUNK):
            part = content[low : low + _CHUNK]
            entry.crc = zlib.crc32(part, entry.crc)
            self.stream.write(part)
        end = self.stream.tell()
        self.stream.seek(entry.header + 14)
        self.stream.write(struct.pack("<L", entry.crc))
        self.stream.seek(end)
        self.records.append(entry)

    def digits(self) -> str:
        """Forty digits that depend on nothing but the records so far."""
        summary = [(record.name, record.crc, record.nbytes) for record in self.records]
        return f"{int(hashlib.sha256(repr(summary).encode()).hexdigest(), 16) % 10**40:040d}"

    def finish(self) -> None:
        """Writes the directory."""
        start = self.stream.tell()
        for record in self.records:
            self.stream.write(_directory_entry(record))
        self.stream.write(_directory_end(len(self.records), start, self.stream.tell()))


def _local_header(entry: _Written) -> bytes:
    extra = struct.pack("<2H2Q", 1, 16, entry.nbytes, entry.nbytes) if entry.nbytes >= LIMIT32 else b""
    size = _clipped(entry.nbytes)
    fixed = entry.header + 30 + len(entry.name) + len(extra) + 4
    extra += b"FB" + struct.pack("<H", -fixed % ALIGNMENT) + b"Z" * (-fixed % ALIGNMENT)
    return (
        struct.pack(
            "<4s5H3L2H",
            b"PK\x03\x04",
            _version(entry),
            _FLAGS,
            0,
            0,
            _DATE,
            0,
            size,
            size,
            len(entry.name),
            len(extra),
        )
        + entry.name
        + extra
    )


def _directory_entry(entry: _Written) -> bytes:
    large = [number for number in (entry.nbytes, entry.nbytes, entry.header) if number >= LIMIT32]
    extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    size, header = _clipped(entry.nbytes), _clipped(entry.header)
    version = _version(entry)
    fields = (
        version,
        version,
        _FLAGS,
        0,
        0,
        _DATE,
        entry.crc,
        size,
        size,
        len(entry.name),
        len(extra),
        0,
        0,
        0,
        0,
    )
    return struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *fields, header) + entry.name + extra


def _directory_end(count: int, start: int, end: int) -> bytes:
    nbytes = end - start
    tail = b""
    if count >= LIMIT16 or start >= LIMIT32:
        tail = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, nbytes, start)
        tail += struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    count, start = (count if count < LIMIT16 else _ELSEWHERE16), _clipped(start)
    return tail + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, nbytes, start, 0)


def _clipped(number: int) -> int:
    return number if number < LIMIT32 else _ELSEWHERE32


def _version(entry: _Written) -> int:
    return 45 if entry.nbytes >= LIMIT32 or entry.header >= LIMIT32 else 20
