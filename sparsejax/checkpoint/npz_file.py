"""NumPy ``.npz`` archives: headers first, data when asked, never a pickle."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from sparsejax.checkpoint.errors import CorruptFileError, UnsupportedTensorError
from sparsejax.checkpoint.replace_file import replaced

MAX_EXPANSION = 1032
"""What deflate can reach at best; more is a forged size."""

_UNREADABLE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class NpzArray:
    """One array of an archive, in this machine's byte order; `view` reads it."""

    path: Path
    entry: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def view(self) -> np.ndarray:
        """The data; zipfile checks its checksum."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as stream:
                array = npy.read_array(stream, allow_pickle=False)
                return array.astype(self.dtype, copy=False)
        except _UNREADABLE as error:
            raise CorruptFileError(f"the array {self.entry!r} cannot be read: {error}") from error


def read_headers(path: str | os.PathLike[str]) -> dict[str, NpzArray]:
    """The arrays of an archive by name, without their data.

    Args:
      path: an ``.npz`` file.

    Returns:
      lazy arrays by name, ``.npy`` stripped.

    Raises:
      CorruptFileError: no readable archive of arrays, or sizes that contradict each other.
      UnsupportedTensorError: an array of Python objects or records.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            headers = {info.filename.removesuffix(".npy"): _header(path, archive, info) for info in entries}
    except _UNREADABLE as error:
        raise CorruptFileError(f"no readable .npz archive: {error}") from error
    if len(headers) != len(entries):
        raise CorruptFileError("two arrays have the same name")
    return headers


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a zip archive whose entries are all ``.npy``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _UNREADABLE:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def write(arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write an uncompressed ``.npz`` of exactly this name; an old file stays until the new one is whole.

    Raises:
      ExportError: the file cannot be written, or an array is of Python objects.
    """
    with replaced(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, np.asarray(array), allow_pickle=False)


def _header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpzArray:
    if info.file_size > MAX_EXPANSION * max(1, info.compress_size):
        raise CorruptFileError(f"the entry {info.filename!r} claims an impossible size")
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise CorruptFileError(f"the array {info.filename!r} has the unknown format version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        start = stream.tell()
    if dtype.hasobject or dtype.fields or dtype.kind not in "fciub":
        raise UnsupportedTensorError(f"the array {info.filename!r} has dtype {dtype}; numbers are needed")
    if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise CorruptFileError(f"the array {info.filename!r} of shape {shape} does not fill its entry")
    return NpzArray(path, info.filename, shape, dtype.newbyteorder("="))
