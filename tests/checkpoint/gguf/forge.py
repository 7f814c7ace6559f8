"""GGUF files made byte by byte, independent of the writer: sound ones, and any that are not."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

NUMBERS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i")}
NUMBERS |= {"f32": (6, "f"), "bool": (7, "B"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str | bytes, kind: str, value: Any) -> bytes:
    """A metadata entry; ``kind`` is "u32", "str", "[f32]" and so on."""
    if kind == "str":
        return string(key) + struct.pack("<I", 8) + string(value)
    if kind == "[str]":
        return string(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))
    if kind.startswith("["):
        code, letter = NUMBERS[kind[1:-1]]
        head = struct.pack("<IIQ", 9, code, len(value))
        return string(key) + head + struct.pack(f"<{len(value)}{letter}", *value)
    code, letter = NUMBERS[kind]
    return string(key) + struct.pack(f"<I{letter}", code, value)


def info(name: str | bytes, dims: tuple[int, ...], code: int, offset: int) -> bytes:
    """A line of the tensor table; dims in the file's own order."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, code, offset)


def file(
    entries: list[bytes],
    infos: list[bytes],
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    magic: bytes = b"GGUF",
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A whole file; ``counts`` are those that it claims, tensors first."""
    claimed = counts or (len(infos), len(entries))
    head = magic + struct.pack("<IQQ", version, *claimed) + b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def small(alignment: int = 32, version: int = 3) -> bytes:
    """A file with one of each: three tensors, values of all types."""
    f32 = np.arange(12, dtype=np.float32).tobytes()
    q8 = (struct.pack("<e", 0.5) + bytes(range(32))) * 2
    i32 = np.array([7, -7], np.int32).tobytes()
    data, infos = b"", []
    for name, dims, code, raw in (("a", (4, 3), 0, f32), ("b", (32, 2), 8, q8), ("c", (2,), 26, i32)):
        infos.append(info(name, dims, code, len(data)))
        data += raw + bytes(-len(raw) % alignment)
    numbers = {"u8": 200, "i8": -5, "u16": 60000, "i16": -30000, "u32": 7, "i32": -7, "u64": 1 << 40}
    numbers |= {"i64": -(1 << 40), "f32": 1.5, "f64": 3.25, "bool": 1}
    entries = [entry(f"number.{kind}", kind, value) for kind, value in numbers.items()]
    entries += [
        entry("general.alignment", "u32", alignment),
        entry("text", "str", "πβ"),
        entry("words", "[str]", ["a", "", "日本", "é"]),
        entry("floats", "[f32]", [1.5, 2.5]),
        entry("flags", "[bool]", [1, 0]),
        entry("none", "[str]", []),
        entry("no_numbers", "[u16]", []),
    ]
    return file(entries, infos, data, version=version, alignment=alignment)


def llama() -> bytes:
    """A whole network: one block of width 4, 3 tokens."""
    wide, square = (4,), (4, 4)
    shapes = {"token_embd": (4, 3), "output_norm": wide, "blk.0.attn_norm": wide, "blk.0.ffn_norm": wide}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": square for name in matrices}
    data, infos = b"", []
    for name, dims in shapes.items():
        infos.append(info(f"{name}.weight", dims, 0, len(data)))
        raw = np.linspace(-1, 1, int(np.prod(dims)), dtype=np.float32).tobytes()
        data += raw + bytes(-len(raw) % 32)
    sizes = {"embedding_length": 4, "block_count": 1, "feed_forward_length": 4, "attention.head_count": 1}
    entries = [entry("general.architecture", "str", "llama")]
    entries += [entry(f"llama.{name}", "u32", value) for name, value in sizes.items()]
    entries += [
        entry("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5),
        entry("tokenizer.ggml.tokens", "[str]", ["a", "b", "c"]),
    ]
    return file(entries, infos, data)
