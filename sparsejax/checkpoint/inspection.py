"""`inspect`: what a file holds, told from its headers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsejax.checkpoint import registry, store
from sparsejax.checkpoint.errors import AmbiguousVariantError, CheckpointError
from sparsejax.checkpoint.readable import located
from sparsejax.checkpoint.rules import unused_keys
from sparsejax.checkpoint.source_file import SourceFile, is_native, open_source
from sparsejax.checkpoint.tree import flatten


@dataclass(frozen=True)
class TensorRow:
    """One line of the tensor table; ``dtype`` is a GGUF format where the file has one."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Report:
    """What `inspect` found.

    Attributes:
      path: the file or directory.
      file_format: "zip", "legacy", "npz", "onnx", "gguf", "json" or "sparsejax".
      kind: family; None if no family recognises it.
      variant: layout within the family; None if only the caller can tell, see `problem`.
      config: as far as shapes and metadata tell; None if `problem` says why not.
      tensors: one row per tensor.
      metadata: names beside the state dict.
      container: top-level key of the state dict.
      prefix: wrapper prefix of every key.
      pickle_globals: names that the pickle refers to, all within the allow-list.
      facts: what the format tells besides, as texts by name; of GGUF the architecture and the tokenizer.
      unknown: tensors that the variant has no use for.
      problem: why `load` would refuse the file; None if nothing is known against it.
    """

    path: str
    file_format: str
    kind: str | None
    variant: str | None
    config: Any
    tensors: tuple[TensorRow, ...]
    metadata: tuple[str, ...] = ()
    container: str | None = None
    prefix: str = ""
    pickle_globals: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    problem: CheckpointError | None = field(default=None, compare=False)

    @property
    def num_values(self) -> int:
        """Values in all tensors."""
        return sum(math.prod(row.shape) for row in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes in all tensors."""
        return sum(row.nbytes for row in self.tensors)


def inspect(path: str | os.PathLike[str]) -> Report:
    """What a checkpoint file or directory holds; no array data is read, nothing is run.

    Args:
      path: as for `load`.

    Returns:
      `Report`; files of no known family are described too, with ``kind=None`` and the reason in ``problem``.

    Raises:
      CheckpointError: the file cannot be read at all, or its pickle wants to run code.

    Example:
      >>> import sparsejax as sj
      >>> report = sj.inspect("checkpoints/ultra_sparse_sine.pt")
      >>> report.kind, [row.key for row in report.tensors][:2]
      ('ultra_sparse', ['w1', 'b1'])
    """
    if is_native(path):
        return _inspect_directory(path)
    source = open_source(path)
    report = Report(
        path=str(path),
        file_format=source.layout.file_format,
        kind=None,
        variant=None,
        config=None,
        tensors=_rows(source.tensors),
        metadata=tuple(map(str, source.metadata)),
        container=source.layout.container,
        prefix=source.layout.prefix,
        pickle_globals=source.pickle_globals,
        facts=source.facts,
        problem=source.problem,
    )
    return _identified(report, source)


def _identified(report: Report, source: SourceFile) -> Report:
    fields: dict[str, Any] = {}
    tensors, metadata = source.tensors, source.metadata
    try:
        with located(report.path):
            family, fields["variant"] = registry.identify(tensors, metadata, file_format=report.file_format)
            fields["kind"] = family.kind
            config = registry.configure(family, fields["variant"], tensors, metadata, {})
            fields |= {
                "config": config,
                "unknown": unused_keys(family.rules(fields["variant"], config), tensors),
            }
    except CheckpointError as error:
        fields["problem"] = report.problem or error
        if isinstance(error, AmbiguousVariantError) and error.kind is not None:
            fields["kind"] = error.kind
    return Report(**{**vars(report), **fields})


def _inspect_directory(directory: str | os.PathLike[str]) -> Report:
    header = store.read_header(directory)
    fields = header.fields
    with located(directory), store.describing(header):
        family = registry.find(fields["kind"])
        config = family.config_from_json(fields["config"])
        told = fields.get("packed", {})
        rows = tuple(
            TensorRow(row.key, tuple(told[row.key]["shape"]), told[row.key]["format"], row.nbytes)
            if row.key in told
            else row
            for row in _rows(flatten(store.array_shapes(header)))
        )
        return Report(
            path=str(directory),
            file_format="sparsejax",
            kind=family.kind,
            variant=fields["variant"],
            config=config,
            tensors=rows,
        )


def _rows(tensors: Mapping[str, Any]) -> tuple[TensorRow, ...]:
    return tuple(
        TensorRow(key, tuple(value.shape), getattr(value, "format", value.dtype.name), _nbytes(value))
        for key, value in tensors.items()
    )


def _nbytes(value: Any) -> int:
    """Bytes in the file, which of blocks are not those of their numbers."""
    nbytes = getattr(value, "nbytes", None)
    size: int = math.prod(value.shape) * value.dtype.itemsize if nbytes is None else nbytes
    return size
