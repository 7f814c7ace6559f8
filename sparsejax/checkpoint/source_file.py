"""Opens any file that holds a state dict and says what is in it, without reading array data."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsejax.checkpoint import npz_file, onnx_file, torch_file
from sparsejax.checkpoint.checkpoint import Source
from sparsejax.checkpoint.container import Layout, LazyArray, is_array, unpack
from sparsejax.checkpoint.errors import CheckpointError, NotReadableError, file_name
from sparsejax.checkpoint.native.header import HEADER_FILE
from sparsejax.checkpoint.torch_format import bulk
from sparsejax.checkpoint.torch_format.pickle_tree import leaves, rebuild
from sparsejax.checkpoint.torch_format.storages import TensorRef


@dataclass(frozen=True)
class SourceFile:
    """An opened file.

    Attributes:
      path: as given.
      tensors: lazy arrays by key, wrapper prefixes removed.
      metadata: everything beside the state dict, with lazy arrays in it.
      layout: how the parts were arranged.
      pickle_globals: names that the file's pickle refers to; empty for other formats.
    """

    path: Path
    tensors: dict[str, LazyArray]
    metadata: dict[str, Any]
    layout: Layout
    pickle_globals: tuple[str, ...] = ()


def open_source(path: str | os.PathLike[str]) -> SourceFile:
    """Open a torch file (zip or legacy), an ``.npz``, or the weights of an ``.onnx``.

    Raises:
      CheckpointError: a subclass that names the file and what is wrong with it.
    """
    path = Path(path)
    check_readable(path)
    with located(path):
        if npz_file.is_npz(path):
            tensors, metadata, layout = unpack(npz_file.read_headers(path), "npz")
            return SourceFile(path, tensors, metadata, layout)
        if onnx_file.is_onnx(path):
            tensors, metadata, layout = unpack(onnx_file.read_initializers(path), "onnx")
            # A graph is no state dict: there is no order of keys to write again.
            return SourceFile(path, tensors, metadata, Layout("onnx", prefix=layout.prefix))
    file = torch_file.open_file(path)
    with located(path):
        tensors, metadata, layout = unpack(file.tree, file.format)
    return SourceFile(path, tensors, metadata, layout, file.globals)


def is_native(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a sparsejax directory, judged by its header file."""
    return os.path.isfile(os.path.join(path, HEADER_FILE))


def check_readable(path: Path) -> None:
    """Raise unless the path is a file that can be opened.

    Raises:
      NotReadableError: it is missing, a directory, something else, or not permitted.
    """
    try:
        if path.is_dir():
            raise NotReadableError(
                f"{file_name(path)}: a directory, but no sparsejax checkpoint (it has no sparsejax.json)"
            )
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotReadableError(f"{file_name(path)}: not a regular file")
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise NotReadableError(f"{file_name(path)}: no such file") from error
    except PermissionError as error:
        raise NotReadableError(f"{file_name(path)}: no permission to read it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotReadableError(f"{file_name(path)}: cannot be opened ({reason})") from error


@contextmanager
def located(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the message of a `CheckpointError` raised inside."""
    name = file_name(path)
    try:
        yield
    except CheckpointError as error:
        if not str(error).startswith(name):
            error.args = (f"{name}: {error}", *error.args[1:])
        raise


def verify_checksums(values: Iterable[Any]) -> None:
    """Compare the storages behind lazy arrays with the file's checksums.

    Raises:
      CorruptFileError: one differs; names its record.
    """
    bulk.verify(value.storage for value in values if isinstance(value, TensorRef))


def read_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata with its lazy arrays read, compared with their checksums and copied."""
    verify_checksums(leaves(metadata))
    return cast(dict[str, Any], rebuild(metadata, _copied))


def _copied(leaf: Any) -> Any:
    return np.array(leaf.view()) if is_array(leaf) else leaf


def describe_source(path: str | os.PathLike[str]) -> Source:
    """Size and time of a file, so that its hash can be taken later if it is still the same."""
    status = os.stat(path)
    return Source(str(path), status.st_size, status.st_mtime_ns)


def sha256_of(source: Source | None) -> str | None:
    """SHA-256 of the file a checkpoint came from; None if it has changed or gone since."""
    if source is None or source.sha256 is not None:
        return source.sha256 if source else None
    try:
        if describe_source(source.path) != source:
            return None
        with open(source.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
