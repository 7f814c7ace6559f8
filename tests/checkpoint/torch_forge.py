"""Torch files put together byte by byte, with the standard library only: oracles and hostile files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    count = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([count]) + value.to_bytes(count, "little", signed=True)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def numbers(values) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(
    key: str, numel: int, kind: str = "FloatStorage", *, legacy: bool = False, view: bytes = b"N"
) -> bytes:
    module, _, attribute = f"torch.{kind}".rpartition(".")
    tail = view if legacy else b""
    return (
        b"("
        + text("storage")
        + name(module, attribute)
        + text(key)
        + text("cpu")
        + number(numel)
        + tail
        + b"tQ"
    )


def tensor(stored: bytes, shape, strides, offset: int = 0, *, tail: bytes = b"") -> bytes:
    """A tensor of an older kind of storage; ``tail`` is the optional metadata."""
    fields = stored + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + ordered_dict() + tail
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + fields + b"tR"


def ordered_dict() -> bytes:
    return name("collections", "OrderedDict") + b")R"


def call(module: str, attribute: str, *args: bytes) -> bytes:
    return name(module, attribute) + b"(" + b"".join(args) + b"tR"


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + item for key, item in items.items()) + b"u"


def whole(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def zip_bytes(
    pickled: bytes, storages: dict[str, bytes] | None = None, *, root: str = "archive", **records
) -> bytes:
    """A torch zip file; further keyword arguments are records (None leaves a standard one out)."""
    entries = {"data.pkl": pickled, "byteorder": b"little"}
    entries |= {f"data/{key}": raw for key, raw in (storages or {}).items()}
    entries |= {"version": b"3\n", **{key.replace("__", "/"): raw for key, raw in records.items()}}
    return pack({f"{root}/{key}": raw for key, raw in entries.items() if raw is not None})


def pack(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for entry, raw in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), raw, compression)
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The records of a file in which they lie uncompressed, whatever their checksums say."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                stream._expected_crc = None
                found[info.filename] = stream.read()
    return found


def legacy_bytes(
    body: bytes, storages: dict[str, tuple[int, bytes]], *, keys: list | None = None, version: int = 1001
) -> bytes:
    """A file of the format before torch 1.6; ``storages`` gives count of elements and data by key."""
    keys = sorted(storages) if keys is None else keys
    head = [MAGIC, version, {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}]
    out = b"".join(pickle.dumps(value, 2) for value in head) + whole(body) + pickle.dumps(keys, 2)
    return out + b"".join(
        struct.pack("<q", count) + raw for count, raw in (storages[key] for key in sorted(storages))
    )


def without_checksums(content: bytes) -> bytes:
    """The zip file as torch writes it under ``set_crc32_options(False)``: every checksum zero."""
    out = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        at = archive.start_dir
    for info in infos:
        out[info.header_offset + 14 : info.header_offset + 18] = bytes(4)
    while out[at : at + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<3H", out, at + 28)
        out[at + 16 : at + 20] = bytes(4)
        at += 46 + sum(lengths)
    return bytes(out)


def checksum(raw: bytes) -> int:
    return zlib.crc32(raw)
