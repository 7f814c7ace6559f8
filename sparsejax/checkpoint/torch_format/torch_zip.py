"""The zip container of torch >= 1.6: its directory, checked before anything in it is used."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from mmap import mmap
from typing import BinaryIO

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    NotReadableError,
    TruncatedFileError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.torch_format.storages import checksum_error

SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5HLLL2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_LISTING_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OverflowError)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored record of the archive.

    Attributes:
      start: first byte in the file.
      nbytes: its size.
      crc: CRC-32 that the directory records.
    """

    start: int
    nbytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The records below the archive's root folder.

    Attributes:
      entries: by name inside the root folder, such as ``"data/0"``.
      has_checksums: False for files written under ``set_crc32_options(False)``, where torch leaves
        every checksum zero.
    """

    entries: dict[str, Entry]
    has_checksums: bool


def open_archive(stream: BinaryIO, file: mmap, where: str) -> Archive:
    """Lists a torch zip file and checks its directory.

    Args:
      stream: the file, open for reading.
      file: its memory map.
      where: its name for messages.

    Raises:
      TruncatedFileError: there is no directory at the end.
      NotReadableError: a zip file of another kind.
      UnsupportedTensorError: a TorchScript program.
      CorruptFileError: records are compressed, encrypted, overlap, repeat, leave the root folder or
        lie outside the file.
    """
    infos, end = _listing(stream, where)
    root = _root_folder(infos, where)
    _refuse_torchscript(infos, root, where)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for info in infos:
        name = _checked_name(info, root, where)
        start = _data_start(info, file, where)
        if start + info.file_size > end:
            raise CorruptFileError(
                f"{where}: record {name!r} reaches beyond the archive; fetch the file again"
            )
        if name in entries:
            raise CorruptFileError(f"{where}: two records are named {name!r}")
        entries[name] = Entry(start, info.file_size, info.CRC)
        spans.append((info.header_offset, start + info.file_size))
    _check_disjoint(spans, where)
    has_checksums = any(entry.crc for entry in entries.values())
    return Archive(entries, has_checksums)


def record(archive: Archive, name: str, file: mmap, where: str) -> bytes | None:
    """The bytes of a small record, compared with its checksum; None if it is absent."""
    entry = archive.entries.get(name)
    if entry is None:
        return None
    raw = file[entry.start : entry.start + entry.nbytes]
    if archive.has_checksums and zlib.crc32(raw) != entry.crc:
        raise checksum_error(where, name)
    return raw


def _listing(stream: BinaryIO, where: str) -> tuple[list[zipfile.ZipInfo], int]:
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.infolist(), archive.start_dir
    except zipfile.BadZipFile as error:
        if "not a zip file" in str(error):
            raise TruncatedFileError(
                f"{where}: a zip file without its directory at the end; it was cut short, fetch it again"
            ) from None
        raise CorruptFileError(f"{where}: its zip directory is damaged ({error})") from None
    except _LISTING_ERRORS as error:
        raise CorruptFileError(f"{where}: its zip directory is damaged ({type(error).__name__})") from None


def _root_folder(infos: list[zipfile.ZipInfo], where: str) -> str:
    roots = {
        name.removesuffix("data.pkl") for name in (info.orig_filename for info in infos) if _is_pickle(name)
    }
    if len(roots) == 1:
        return roots.pop()
    if roots:
        raise CorruptFileError(f"{where}: {len(roots)} folders of the zip file hold a data.pkl")
    if any(info.orig_filename.endswith(".npy") for info in infos):
        raise NotReadableError(f"{where}: a NumPy .npz archive, not a torch file; read it with numpy.load")
    raise NotReadableError(f"{where}: a zip file without data.pkl: not written by torch.save")


def _refuse_torchscript(infos: list[zipfile.ZipInfo], root: str, where: str) -> None:
    marks = (f"{root}constants.pkl", f"{root}code/")
    if any(info.orig_filename.startswith(marks) for info in infos):
        raise UnsupportedTensorError(
            f"{where}: this is a TorchScript program; save its weights alone, "
            "as torch.save(torch.jit.load(path).state_dict(), new_path)"
        )


def _is_pickle(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return rest == "data.pkl" and folder not in ("", ".", "..")


def _checked_name(info: zipfile.ZipInfo, root: str, where: str) -> str:
    """The record's name below the root folder, if it is a plain stored record."""
    full = info.orig_filename
    parts = full.removesuffix("/").split("/")
    if (
        not full.startswith(root)
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in full
        or "\0" in full
    ):
        raise CorruptFileError(
            f"{where}: record {full[:80]!r} lies outside the archive's folder {root[:80]!r}"
        )
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise CorruptFileError(
            f"{where}: record {full[:80]!r} is compressed, and compressed entries are refused; "
            "write the file with torch.save, which does not compress"
        )
    if info.flag_bits & _ENCRYPTED:
        raise CorruptFileError(f"{where}: record {full[:80]!r} is encrypted")
    return full[len(root) :]


def _data_start(info: zipfile.ZipInfo, file: mmap, where: str) -> int:
    """First byte of a record's data, from the header in front of it."""
    start = info.header_offset
    if start < 0 or start + _LOCAL_HEADER.size > len(file):
        raise CorruptFileError(f"{where}: a record's header lies outside the file; fetch it again")
    signature, _, flags, method, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(file, start)
    name_start = start + _LOCAL_HEADER.size
    name = file[name_start : name_start + name_length]
    encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
    if signature != SIGNATURE or name != info.orig_filename.encode(encoding, "replace"):
        raise CorruptFileError(f"{where}: a record's header disagrees with the zip directory")
    if method != zipfile.ZIP_STORED or flags & _ENCRYPTED:
        raise CorruptFileError(f"{where}: a record is compressed or encrypted, and such entries are refused")
    start_of_data: int = name_start + name_length + extra_length
    return start_of_data


def _check_disjoint(spans: list[tuple[int, int]], where: str) -> None:
    spans = sorted(spans)
    for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
        if start < end:
            raise CorruptFileError(f"{where}: records of the archive overlap; torch did not write this file")
