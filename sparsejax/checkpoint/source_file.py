"""Opens any file that holds a state dict and says what is in it, without reading array data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsejax.checkpoint import gguf, json_file, npz_file, onnx_file, torch_file
from sparsejax.checkpoint.checkpoint import Source
from sparsejax.checkpoint.container import Layout, LazyArray, is_array, unpack
from sparsejax.checkpoint.errors import CheckpointError, file_name
from sparsejax.checkpoint.native.header import HEADER_FILE
from sparsejax.checkpoint.readable import check_readable, located
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
      facts: what its format tells besides, as short texts by name.
      problem: why no model can be made of it, though it can be looked at.
    """

    path: Path
    tensors: dict[str, LazyArray]
    metadata: dict[str, Any]
    layout: Layout
    pickle_globals: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: CheckpointError | None = None


def open_source(path: str | os.PathLike[str]) -> SourceFile:
    """Open a torch file (zip or legacy), ``.npz``, ``.gguf``, ``.json``, or the weights of an ``.onnx``.

    Raises:
      CheckpointError: a subclass that names the file and what is wrong with it.
    """
    path = Path(path)
    check_readable(path)
    with located(path):
        if gguf.is_gguf(path):
            return _gguf_source(path)
        if json_file.is_json(path):
            tree, lists = json_file.read_json(path)
            tensors, metadata, layout = unpack(tree, "json")
            return SourceFile(path, tensors, metadata, replace(layout, details={"lists": list(lists)}))
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


def _gguf_source(path: Path) -> SourceFile:
    """A GGUF file; one that no model can be made of is opened too, with the reason."""
    file = gguf.read_gguf(path, strict=False)
    details = {"version": file.version, "types": file.types}
    layout = Layout("gguf", keys=tuple(file.tensors), beside=tuple(file.metadata), details=details)
    tensors = cast(dict[str, LazyArray], dict(file.tensors))
    if file.problem is not None:
        file.problem.args = (f"{file_name(path)}: {file.problem}",)
    return SourceFile(path, tensors, file.metadata, layout, facts=file.facts(), problem=file.problem)


def is_native(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a sparsejax directory, judged by its header file."""
    return os.path.isfile(os.path.join(path, HEADER_FILE))


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
    if isinstance(leaf, gguf.StringArray):
        return list(leaf)
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
