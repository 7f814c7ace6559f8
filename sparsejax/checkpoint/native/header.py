"""``sparsejax.json``: what a checkpoint directory says of itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    NewerFormatError,
    NotReadableError,
    TruncatedFileError,
    file_name,
)
from sparsejax.checkpoint.tree import unflatten
from sparsejax.version import __version__

FORMAT_VERSION = 1
HEADER_FILE = "sparsejax.json"
RESERVED = ("format_version", "payload", "parameters", "files")

_PAYLOAD = re.compile(r"arrays-[0-9a-f]{16}")
_TEMPORARY = re.compile(r"sparsejax\.json\.[0-9a-f]{16}")
_ARRAY = re.compile(r"(\w+)\[((?:\d+(?:,\d+)*)?)\]")  # float32[16,8]


@dataclass(frozen=True)
class Header:
    """What ``sparsejax.json`` says.

    Attributes:
      directory: the checkpoint, as the caller named it.
      fields: the header that `write_directory` was given, as JSON gives it back (tuples are lists).
      payload: absolute path of the folder that holds the arrays.
      parameters: dtype and shape by parameter path, such as ``layer_0/kernel``.
      files: (size in bytes, CRC-32) by path inside the payload.
    """

    directory: Path
    fields: dict[str, Any]
    payload: Path
    parameters: dict[str, jax.ShapeDtypeStruct]
    files: dict[str, tuple[int, int]]


def read_header(directory: str | os.PathLike[str]) -> Header:
    """Reads ``sparsejax.json``; opens no array.

    Raises:
      NotReadableError: the path is missing, not a directory, not a sparsejax checkpoint, or not permitted.
      TruncatedFileError: a first save into it did not finish.
      CorruptFileError: the JSON is damaged or its payload folder is gone.
      NewerFormatError: a later version of sparsejax wrote it.
    """
    directory = Path(directory)
    document = read_document(directory)
    try:
        payload = directory.absolute() / _matched(_PAYLOAD, document["payload"])[0]
        files = {_inside(name): _size_and_crc(text) for name, text in document["files"].items()}
        parameters = {path: _abstract(text) for path, text in document["parameters"].items()}
        unflatten(parameters)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"{HEADER_FILE} is damaged ({type(error).__name__}: {first_line(error)})"
        raise corrupt(directory, told) from error
    if not payload.is_dir():
        raise corrupt(directory, f"the folder {payload.name} with its arrays is gone")
    fields = {name: value for name, value in document.items() if name not in RESERVED}
    return Header(directory, fields, payload, parameters, files)


def read_document(directory: Path) -> dict[str, Any]:
    """``sparsejax.json`` as it is, if its version is one that this library reads."""
    try:
        document = json.loads((directory / HEADER_FILE).read_bytes())
    except OSError as error:
        raise _absence(directory, error) from error
    except (ValueError, RecursionError) as error:
        raise corrupt(directory, f"{HEADER_FILE} is not valid JSON: {first_line(error)}") from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise corrupt(directory, f"{HEADER_FILE} has no format_version: not written by sparsejax, or damaged")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{file_name(directory)}: written by format {version}; this is sparsejax {__version__}, "
            f"which reads up to {FORMAT_VERSION}: upgrade sparsejax"
        )
    fields: dict[str, Any] = document
    return fields


@contextmanager
def describing(header: Header) -> Iterator[None]:
    """Tells a header that no model can be made of as damage.

    Raises:
      CorruptFileError: something else than a `CheckpointError` was raised inside.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # values of wrong types can fail anywhere in the making of a model
        told = f"{HEADER_FILE} describes no model ({type(error).__name__}: {first_line(error)})"
        raise corrupt(header.directory, told) from error


def _absence(directory: Path, error: OSError) -> CheckpointError:
    """Why there is no ``sparsejax.json`` to read."""
    name = file_name(directory)
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotReadableError(f"{name}: {HEADER_FILE} cannot be read: {error.strerror}")
    if not directory.exists():
        return NotReadableError(f"{name}: no such directory")
    if not directory.is_dir():
        return NotReadableError(f"{name}: is a file, not a checkpoint directory")
    if all(is_leftover(entry.name) for entry in directory.iterdir()):
        return TruncatedFileError(f"{name}: an unfinished save: no {HEADER_FILE} yet; save again")
    return NotReadableError(f"{name}: has no {HEADER_FILE}: not a sparsejax checkpoint")


def is_leftover(name: str) -> bool:
    """Whether a file of this name is the store's own: a payload or a temporary file."""
    return bool(_PAYLOAD.fullmatch(name) or _TEMPORARY.fullmatch(name))


def shape_text(leaf: Any) -> str:
    """Dtype and shape as ``float32[16,8]``."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def _abstract(text: str) -> jax.ShapeDtypeStruct:
    dtype, shape = _matched(_ARRAY, text).groups()
    return jax.ShapeDtypeStruct(tuple(map(int, shape.split(","))) if shape else (), np.dtype(dtype))


def _size_and_crc(text: str) -> tuple[int, int]:
    size, crc = text.split()
    return int(size), int(crc, 16)


def _inside(name: str) -> str:
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"{name!r} lies outside")
    return name


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not understood")
    return match


def first_line(error: Exception) -> str:
    """An error of another library as one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def corrupt(directory: Path, what: str) -> CorruptFileError:
    """The error for damage that only a copy mends."""
    return CorruptFileError(
        f"{file_name(directory)}: {what}; restore the directory from a copy, or convert again"
    )
