"""Damages GGUF files at random, where it hurts: in counts, sizes, types, names and offsets, or anywhere."""

from __future__ import annotations

import random
import struct

from tests import golden
from tests.checkpoint.gguf import forge

_EDGES = (
    0,
    1,
    2,
    4,
    7,
    31,
    32,
    33,
    255,
    256,
    1 << 15,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 61,
    1 << 62,
    1 << 63,
)
_NUMBERS = (*_EDGES, (1 << 64) - 1, (1 << 64) - 32)


def corpus() -> list[bytes]:
    """Whole files: some of our own, one of them a network, and the small golden one where there are any."""
    files = [forge.small(), forge.small(64, 2), forge.file([], []), forge.llama()]
    if golden.AVAILABLE:
        files.append(golden.path("sparse_inference", "tiny_a.gguf").read_bytes())
    return files


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The file with one to four things wrong."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_DAMAGES)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """More often in the head, where the structure is."""
    return rng.randrange(min(len(content), rng.choice((24, 400, 2080, 1 << 30)))) if content else 0


def _bit(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return (
        content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :] if content else b""
    )


def _number(content: bytes, rng: random.Random) -> bytes:
    """A number of 4 or 8 bytes replaced by one at the edge of something, or by one near to it."""
    letter, size = rng.choice((("I", 4), ("Q", 8)))
    if len(content) < size:
        return content
    at = min(_place(content, rng), len(content) - size)
    old = int.from_bytes(content[at : at + size], "little")
    new = rng.choice((rng.choice(_NUMBERS), old + rng.choice((-1, 1, 31, 32)), old * 2, old // 2))
    return content[:at] + struct.pack(f"<{letter}", new % (1 << (8 * size))) + content[at + size :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _removed(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 4, 8, 40)) :]


def _inserted(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 8, 40))) + content[at:]


def _copied(content: bytes, rng: random.Random) -> bytes:
    """Some bytes over others of the same file: names, types and offsets that belong elsewhere."""
    size, source, target = rng.choice((4, 8, 21, 60)), _place(content, rng), _place(content, rng)
    piece = content[source : source + size]
    return content[:target] + piece + content[target + len(piece) :]


def _text(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    word = rng.choice((b"split.count", b"general.alignment", b"_exps.", b"\xff\xfe", b"GGUF", b"\0" * 16))
    return content[:at] + word + content[at + len(word) :]


_DAMAGES = (_bit, _bit, _number, _number, _number, _cut, _removed, _inserted, _copied, _text)
