"""`load`: from a file of an original project, or a sparsejax directory, to a `Checkpoint`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint import registry, store
from sparsejax.checkpoint.checkpoint import Checkpoint, Source, template
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import AmbiguousVariantError, UnknownFormatError
from sparsejax.checkpoint.materialise import materialise
from sparsejax.checkpoint.rules import dropped_keys, source_key, to_params
from sparsejax.checkpoint.source_file import (
    describe_source,
    located,
    open_source,
    read_metadata,
    verify_checksums,
)
from sparsejax.checkpoint.tree import flatten, unflatten


def load(
    path: str | os.PathLike[str],
    kind: str | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> Checkpoint:
    """Load a model from a file of its original project, or from a sparsejax directory. Needs no torch.

    The file's family, variant and config are found from its keys and shapes. Nothing in the file is ever
    run: pickles go through an allow-list. Strict: no tensor is left unused, none may be missing, none may
    be NaN.

    Args:
      path: ``.pt`` / ``.pth`` (zip or legacy), ``.npz`` where the family has it, or a directory written by
        `save`.
      kind: family to take instead of the detected one.
      variant: layout to take instead of the detected one.
      overrides: config fields that neither shapes nor the file's own metadata tell.
      dtype: for floating parameters, such as "bfloat16"; None keeps the file's (float64 becomes float32
        unless ``jax_enable_x64`` is on).

    Returns:
      `Checkpoint` with its parameters on the default device.

    Raises:
      CheckpointError: a subclass that names the file, the key and what to do.

    Example:
      >>> import sparsejax as sj
      >>> sj.load("checkpoints/ultra_sparse_sine.pt").config.num_parameters
      33

    Source: specs section 2 of each family for the layouts.
    """
    if Path(path).is_dir() and (Path(path) / store.HEADER_FILE).exists():
        return _load_directory(path, kind, variant, overrides, dtype)
    source = open_source(path)
    origin = describe_source(path)
    with located(path):
        family, found = registry.identify(source.tensors, source.metadata, kind, variant)
        config = _config(family, found, source, overrides or {})
        rules = family.rules(found, config)
        views = {key: array.view() for key, array in source.tensors.items()}
        needed = template(family, config)
        params = flatten(to_params(rules, views, needed))
        labels = {path: source_key(rules, path) for path in params}
        checks = [partial(verify_checksums, source.tensors.values())]
        host = unflatten(materialise(params, checks, dtypes=_types(params, needed, dtype), labels=labels))
        family.check_params(config, host)
        metadata = read_metadata(source.metadata)
    # No further copy on CPU: the arrays are fresh, aligned and handed over.
    arrays = jax.tree.map(lambda array: jax.device_put(array, may_alias=True), host)
    layout = dataclasses.replace(source.layout, dropped=dropped_keys(rules, source.tensors))
    return Checkpoint(family.kind, found, config, arrays, metadata, layout, origin)


def _types(params: Mapping[str, np.ndarray], needed: Mapping[str, Any], dtype: Any) -> dict[str, np.dtype]:
    """The dtype of every parameter in JAX: floats as asked for, integers as the model has them."""
    types = {}
    for path, leaf in flatten(needed).items():
        stored = params[path].dtype
        if leaf.dtype.kind in "iu":
            types[path] = leaf.dtype
        elif dtype is not None and jnp.issubdtype(stored, jnp.floating):
            types[path] = jnp.dtype(dtype)
        else:
            types[path] = jax.dtypes.canonicalize_dtype(stored)
    return types


def _config(family: registry.Family, variant: str, source: Any, overrides: Mapping[str, Any]) -> Any:
    try:
        return family.config_from(variant, source.tensors, source.metadata, overrides)
    except (TypeError, ValueError) as error:
        raise AmbiguousVariantError(f"the shapes and overrides give no valid config: {error}") from error


def _load_directory(
    directory: str | os.PathLike[str],
    kind: str | None,
    variant: str | None,
    overrides: Mapping[str, Any] | None,
    dtype: Any,
) -> Checkpoint:
    header = store.read_header(directory)
    fields = header.fields
    with located(directory):
        _check_request(fields, kind, variant, overrides)
        family = registry.find(fields["kind"])
        config = family.config_from_json(fields["config"])
        shapes = _with_saved_dtypes(template(family, config), store.array_shapes(header))
        params = store.read_arrays(header, shapes)
        metadata = store.read_metadata(header)
    if dtype is not None:
        params = jax.tree.map(lambda array: _cast(array, dtype), params)
    source = Source(fields.get("source_path") or "", sha256=fields.get("source_sha256"))
    layout = Layout.from_json(fields["layout"])
    return Checkpoint(family.kind, fields["variant"], config, params, metadata, layout, source)


def _check_request(
    fields: Mapping[str, Any], kind: str | None, variant: str | None, overrides: Mapping[str, Any] | None
) -> None:
    if kind not in (None, fields["kind"]) or variant not in (None, fields["variant"]):
        raise UnknownFormatError("holds {kind}/{variant}, not what was asked for".format(**fields))
    if overrides:
        raise AmbiguousVariantError(
            "a sparsejax directory stores its config; overrides are for foreign files"
        )


def _cast(array: jax.Array, dtype: Any) -> jax.Array:
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _with_saved_dtypes(expected: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The config's shapes with the dtypes that were saved: a model cast to bfloat16 stays bfloat16."""
    dtypes = {path: leaf.dtype for path, leaf in flatten(saved).items()}
    return unflatten(
        {
            path: jax.ShapeDtypeStruct(leaf.shape, dtypes.get(path, leaf.dtype))
            for path, leaf in flatten(expected).items()
        }
    )
