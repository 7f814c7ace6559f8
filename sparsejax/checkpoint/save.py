"""`save` to a sparsejax directory, and `export_pt` back to the layout of the original project."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejax.checkpoint import packed, registry, store
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    ExportError,
    MissingKeyError,
    ShapeError,
    UnexpectedKeyError,
    UnknownFormatError,
    file_name,
    shown,
)
from sparsejax.checkpoint.original_file import write_original
from sparsejax.checkpoint.readable import located
from sparsejax.checkpoint.rules import to_state
from sparsejax.checkpoint.source_file import sha256_of
from sparsejax.version import __version__


def save(ck: Checkpoint, directory: str | os.PathLike[str]) -> None:
    """Write a sparsejax directory: parameters by Orbax, everything else in ``sparsejax.json``.

    Atomic: an earlier checkpoint there stays valid until the new one is complete.

    Args:
      ck: the checkpoint.
      directory: a new or empty directory, or an earlier sparsejax checkpoint.

    Raises:
      CheckpointError: the target is something else, or cannot be written.

    Example:
      >>> import sparsejax as sj
      >>> ck = sj.load("checkpoints/ultra_sparse_sine.pt")
      >>> sj.save(ck, "/tmp/sine"); sj.load("/tmp/sine").variant
      'sparse'
    """
    params, told = packed.as_bytes(ck.params)
    header = {
        "kind": ck.kind,
        "variant": ck.variant,
        "config": registry.find(ck.kind).config_to_json(ck.config),
        "layout": ck.layout.to_json(),
        "library_version": __version__,
        "source_path": Path(ck.source.path).name if ck.source else None,
        "source_sha256": sha256_of(ck.source),
    }
    header |= {"packed": told} if told else {}
    store.write_directory(directory, header, params, ck.metadata)


def export_pt(ck: Checkpoint, path: str | os.PathLike[str], variant: str | None = None) -> None:
    """Write a file that the original project loads, such as with ``torch.load(path, weights_only=True)``.

    A checkpoint that came from such a file gets its layout back: container, prefix, key order, tied
    tensors and metadata. Others get the layout of the family's new files. What format that is, the variant
    says: torch's, ``.npz``, ``.json`` or ``.gguf``.

    Args:
      ck: the checkpoint.
      path: file to write; an existing one is replaced only by a complete new one.
      variant: layout of the family to write; None is the one it came in.

    Raises:
      UnknownFormatError: the family has no such variant.
      ExportError: the model does not fit the variant, or the file's suffix does not fit the format.

    Example:
      >>> import sparsejax as sj
      >>> sj.export_pt(sj.load("checkpoints/ultra_sparse_sine.pt"), "/tmp/sine.pt")
    """
    family = registry.find(ck.kind)
    variant = variant or ck.variant
    if variant not in family.layouts:
        raise UnknownFormatError(
            f"{ck.kind} has no variant {variant!r}; give one of {shown(family.layouts, 20)}"
        )
    file_format = family.file_formats.get(variant, "zip")
    _check_suffix(path, variant, file_format)
    layout = (
        ck.layout
        if variant == ck.variant
        else Layout(container="state_dict" if file_format == "zip" else None)
    )
    beside = ck.metadata
    if variant == ck.variant and not layout.keys and layout.container is None:
        layout, told = family.new_file(ck.config)
        beside = {**told, **beside, **told}  # in the order of new files
    if file_format == "npz":
        beside = {}
    state = _state(ck, family, variant, layout)
    with located(path):
        bare = layout.container is None
        metadata = _metadata_that_rebuilds(ck, family, variant, state, beside, bare=bare)
        ordered = {key: state[key] for key in _ordered(state, layout)}
        write_original(ordered, metadata, layout, file_format, path)


def _check_suffix(path: str | os.PathLike[str], variant: str, file_format: str) -> None:
    """Refuse a name under which the file would be taken for one of another format."""
    suffixes = {name: f".{name}" for name in ("npz", "gguf", "json")}
    needed, found = suffixes.get(file_format), Path(path).suffix.lower()
    if found != needed if needed else found in suffixes.values():
        raise ExportError(
            f"{file_name(path)}: the variant {variant!r} is written as a {needed or '.pt'} file; "
            "change the suffix"
        )


def _ordered(state: Mapping[str, Any], layout: Layout) -> list[str]:
    place = {key: number for number, key in enumerate(layout.keys)}
    return sorted(state, key=lambda key: place.get(key, len(place)))


def _metadata_that_rebuilds(
    ck: Checkpoint,
    family: registry.Family,
    variant: str,
    state: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    bare: bool,
) -> Mapping[str, Any]:
    """What must lie beside the state dict for the file to mean this model; the given metadata if it does.

    Raises:
      ExportError: the layout cannot say what this model is: it would load as another function.
    """
    stored = metadata.get("config")
    told = {**(stored if isinstance(stored, Mapping) else {}), **family.stored_config(ck.config)}
    attempts: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [(metadata, {})]
    if own := family.beside(variant, ck.config):
        attempts.append(({**metadata, **own}, {}))
    elif bare and family.overrides_for is not None:
        attempts.append((metadata, family.overrides_for(ck.config)))
    else:
        attempts.append(({**metadata, "config": told}, {}))
    untold = False
    for same in (operator.eq, family.same_function):
        for beside, overrides in attempts:
            try:
                if same(family.config_from(variant, state, beside, overrides), ck.config):
                    return beside
            except AmbiguousVariantError:
                untold = True
            except (MissingKeyError, ShapeError):
                continue
    if untold:  # a layout that never says; its reader has to be told
        return metadata
    raise ExportError(f"the variant {variant!r} cannot say that this model is {ck.config}")


def _state(ck: Checkpoint, family: registry.Family, variant: str, layout: Layout) -> Mapping[str, Any]:
    try:
        return to_state(family.rules(variant, ck.config), ck.params, layout.dropped)
    except (UnexpectedKeyError, KeyError) as error:
        raise ExportError(f"this {ck.kind} model does not fit the variant {variant!r}: {error}") from error
