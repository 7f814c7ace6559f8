"""`load`: from a file of an original project, or a sparsejax directory, to a `Checkpoint`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint import packed, registry, store
from sparsejax.checkpoint.checkpoint import Checkpoint, Source, template
from sparsejax.checkpoint.container import Layout
from sparsejax.checkpoint.errors import (
    AmbiguousVariantError,
    NonFiniteError,
    UnexpectedKeyError,
    UnknownFormatError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.materialise import materialise
from sparsejax.checkpoint.readable import located
from sparsejax.checkpoint.rules import dropped_keys, source_key, to_params
from sparsejax.checkpoint.source_file import (
    describe_source,
    is_native,
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
      path: ``.pt`` / ``.pth`` (zip or legacy), ``.npz``, ``.json`` and ``.gguf`` where the family has it,
        ``.onnx`` (its weights, never its graph), or a directory written by `save`.
      kind: family to take instead of the detected one.
      variant: layout to take instead of the detected one.
      overrides: config fields that neither shapes nor the file's own metadata tell.
      dtype: for floating parameters, such as "bfloat16"; None keeps the file's (float64 becomes float32
        unless ``jax_enable_x64`` is on).

    Returns:
      `Checkpoint` with its parameters on the default device; what a GGUF file has in blocks stays quantised.

    Raises:
      CheckpointError: a subclass that names the file, the key and what to do.
      ValueError: ``dtype`` is no floating type, or is float64 without ``jax_enable_x64``.

    Example:
      >>> import sparsejax as sj
      >>> sj.load("checkpoints/ultra_sparse_sine.pt").config.num_parameters
      33

    Source: specs section 2 of each family for the layouts.
    """
    dtype = _float_dtype(dtype)
    if is_native(path):
        return _load_directory(path, kind, variant, overrides, dtype)
    source = open_source(path)
    origin = describe_source(path)
    with located(path):
        if source.problem is not None:
            raise source.problem
        file_format = source.layout.file_format
        family, found = registry.identify(source.tensors, source.metadata, kind, variant, file_format)
        config = registry.configure(family, found, source.tensors, source.metadata, overrides or {})
        rules = family.rules(found, config)
        tensors = registry.completed(family, source.tensors, file_format)
        views = _views(tensors, file_format)
        needed = template(family, config)
        params = packed.in_order(flatten(to_params(rules, views, needed)), flatten(needed))
        labels = {path: source_key(rules, path) for path in params}
        checks = [partial(verify_checksums, source.tensors.values())]
        plain = {name: leaf for name, leaf in params.items() if not packed.is_packed(leaf)}
        for name in params.keys() - plain.keys():
            packed.check_finite(params[name], labels[name])
        copies = materialise(plain, checks, dtypes=_types(plain, needed, dtype), labels=labels)
        host = unflatten({**params, **copies})
        family.check_params(config, host)
        metadata = read_metadata(source.metadata)
        _check_copies(metadata, source.tensors)
    # No further copy on CPU: the arrays are fresh, aligned and handed over.
    arrays = jax.tree.map(lambda array: jax.device_put(array, may_alias=True), host)
    layout = dataclasses.replace(source.layout, dropped=dropped_keys(rules, source.tensors))
    return Checkpoint(family.kind, found, config, arrays, metadata, layout, origin)


def _views(tensors: registry.Tensors, file_format: str | None) -> dict[str, Any]:
    """The values of all tensors; the bytes of quantised ones are sorted anew, each by a thread of its own."""
    if file_format != "gguf":  # torch's tensors may share a storage, which is made ready once
        return {key: array.view() for key, array in tensors.items()}
    with ThreadPoolExecutor() as pool:
        return dict(zip(tensors, pool.map(lambda array: array.view(), tensors.values()), strict=True))


def _types(params: Mapping[str, Any], needed: Mapping[str, Any], dtype: Any) -> dict[str, np.dtype]:
    """The dtype of every parameter in JAX: floats as asked for, integers as the model has them."""
    types = {}
    wanted = flatten(needed)
    for path, array in params.items():
        leaf, stored = wanted[path], array.dtype
        if packed.is_packed(leaf):
            raise UnsupportedTensorError(f"{path} would be {stored}, and is kept quantised in this model")
        if leaf.dtype.kind in "iub":
            types[path] = leaf.dtype
        elif not jnp.issubdtype(stored, jnp.floating):
            raise UnsupportedTensorError(f"{path} would be {stored}; real floating weights are needed")
        elif dtype is not None:
            types[path] = dtype
        else:
            types[path] = jax.dtypes.canonicalize_dtype(stored)
    return types


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
        with store.describing(header):
            _check_request(fields, kind, variant, overrides)
            family = registry.find(fields["kind"])
            config = family.config_from_json(fields["config"])
            told = fields.get("packed", {})
            shapes = packed.bytes_template(template(family, config), told)
            source = Source(fields.get("source_path") or "", sha256=fields.get("source_sha256"))
            layout = Layout.from_json(fields["layout"])
            saved_as = fields["variant"]
        params = store.read_arrays(header, _with_saved_dtypes(shapes, store.array_shapes(header)))
        metadata = store.read_metadata(header)
        if dtype is not None:
            params = jax.tree.map(lambda array: _cast(array, dtype), params)
        params = packed.from_bytes(params, told)
    return Checkpoint(family.kind, saved_as, config, params, metadata, layout, source)


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
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    result = array.astype(dtype)
    if not jnp.isfinite(result).all():
        raise NonFiniteError(f"a parameter is infinite as {dtype}; choose a wider dtype")
    return result


def _float_dtype(dtype: Any) -> Any:
    if dtype is None:
        return None
    try:
        wanted = jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype={dtype!r} is no dtype; give a floating one such as 'bfloat16'") from error
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(f"dtype={dtype!r} is not floating; give one such as 'bfloat16'")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(f"dtype={dtype!r} needs jax.config.update('jax_enable_x64', True)")
    return wanted


def _check_copies(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Some originals store a tensor beside the state dict again; it must be the same one."""
    for key, value in metadata.items():
        if (
            key in tensors
            and isinstance(value, np.ndarray)
            and not np.array_equal(value, tensors[key].view())
        ):
            raise UnexpectedKeyError(f"{key!r} beside the state dict differs from the one in it; remove one")


def _with_saved_dtypes(expected: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The config's shapes with the dtypes that were saved: a model cast to bfloat16 stays bfloat16."""
    dtypes = {path: leaf.dtype for path, leaf in flatten(saved).items()}
    return unflatten(
        {
            path: jax.ShapeDtypeStruct(leaf.shape, dtypes.get(path, leaf.dtype))
            for path, leaf in flatten(expected).items()
        }
    )
