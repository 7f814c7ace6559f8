"""The native checkpoint directory: ``sparsejax.json`` beside one folder of Orbax arrays.

::

  model/
    sparsejax.json                what the checkpoint is, and the shapes, sizes and checksums of what follows
    arrays-0123456789abcdef/
      params/                     Orbax checkpoint of the parameters, nested as in the model
      metadata.json               what lay beside the state dict, see `json_tree`
      metadata/                   Orbax checkpoint of the arrays in it, as bytes

A save writes a new folder to the end, then replaces ``sparsejax.json`` in one step, then removes the folder
it replaced. Stopped anywhere, it leaves the old checkpoint or the new one, and at worst a folder that the
next save removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    MissingKeyError,
    ShapeError,
    TruncatedFileError,
    UnexpectedKeyError,
    UnsupportedTensorError,
    file_name,
    shown,
)
from sparsejax.checkpoint.native import durable, json_tree, orbax_arrays, several_writers
from sparsejax.checkpoint.native.header import (
    FORMAT_VERSION,
    HEADER_FILE,
    RESERVED,
    Header,
    corrupt,
    describing,
    first_line,
    is_leftover,
    read_document,
    read_header,
    shape_text,
)
from sparsejax.checkpoint.torch_format.torch_types import TorchDevice, TorchDtype, TorchSize
from sparsejax.checkpoint.tree import flatten, unflatten

__all__ = [
    "FORMAT_VERSION",
    "Header",
    "array_shapes",
    "describing",
    "read_arrays",
    "read_header",
    "read_metadata",
    "write_directory",
]

_SYSTEM_SAYS = re.compile(r"([^:\[\]]+) \[os_error_code")
"""The reason at the end of the many words of TensorStore."""

_TYPES = {kind.__name__: kind for kind in (TorchSize, TorchDevice, TorchDtype)}
_ORBAX_MARK = "commit_success.txt"


def write_directory(
    directory: str | os.PathLike[str],
    header: Mapping[str, Any],
    params: Mapping[str, Any],
    metadata: Any = None,
) -> None:
    """Writes a checkpoint directory, or replaces the one that is there in one step.

    Args:
      directory: a new or empty directory (missing parents are created), or an earlier checkpoint. Files of
        others in it are left alone.
      header: plain JSON-able mapping; the names format_version, payload, parameters and files are taken.
      params: nested dict of NumPy or JAX arrays; empty dicts are not kept. If any is spread over devices of
        several processes, all of these must call this with the same arguments and see the same disk.
      metadata: what `json_tree.encode` takes.

    Raises:
      CheckpointError: the target is something else, another process is saving there, the header or metadata
        cannot be encoded, or the disk refuses. An earlier checkpoint stays as it was.
      UnsupportedTensorError: a parameter is not an array, or of a dtype that Orbax does not store.
    """
    directory = Path(directory)
    parameters = _checked_parameters(directory, params)
    document = _header_document(directory, header, parameters)
    tree, arrays = _encoded(directory, metadata)
    with several_writers.taking_part(parameters.values()) as part:
        payload = directory.absolute() / f"arrays-{part.token}"
        if not part.first:
            with _reported(directory, "written", CheckpointError):
                _write_arrays(payload / "params", parameters)
            return
        _check_target(directory)
        with _reported(directory, "written", CheckpointError), _held(directory):
            try:
                _write_payload(payload, parameters, tree, arrays)
                document |= {"payload": payload.name, "files": _checksums(payload)}
                durable.replace_json(directory / HEADER_FILE, document)
            finally:
                _remove_leftovers(directory)


def array_shapes(header: Header) -> dict[str, Any]:
    """The parameters as a nested dict of `jax.ShapeDtypeStruct`; reads nothing but the header."""
    return unflatten(header.parameters)


def read_arrays(
    header: Header, template: Mapping[str, Any], sharding: jax.sharding.Sharding | jax.Device | None = None
) -> dict[str, Any]:
    """The parameters as JAX arrays, whatever devices they were saved from.

    Args:
      header: from `read_header`.
      template: nested dict of `jax.ShapeDtypeStruct`, the parameters that the model needs; the result has its
        structure, empty dicts included. A leaf with a sharding of its own is restored to that.
      sharding: where the other leaves go; the default device if None.

    Raises:
      MissingKeyError, UnexpectedKeyError, ShapeError: the parameters are not those of the template.
      CorruptFileError: a file of the payload is missing, short or altered.

    Example:
      >>> import tempfile
      >>> directory = tempfile.mkdtemp()
      >>> write_directory(directory, {"kind": "toy"}, {"w": np.ones(2, np.float32)})
      >>> header = read_header(directory)
      >>> read_arrays(header, {"w": jax.ShapeDtypeStruct((2,), np.float32)})
      {'w': Array([1., 1.], dtype=float32)}
    """
    wanted = flatten(template)
    _check_template(header, wanted)
    _check_files(header, "params/")
    placed = {path: _with_sharding(leaf, _place(sharding)) for path, leaf in wanted.items()}
    stored = {path: leaf for path, leaf in placed.items() if leaf.size}
    with _reported(header.directory, "read", CorruptFileError):
        params = orbax_arrays.restore(header.payload / "params", stored) if stored else {}
    for path, leaf in placed.items():
        if not leaf.size:
            params[path] = jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    return _like(template, params)


def read_metadata(header: Header) -> Any:
    """The metadata that `write_directory` was given, equal in every type and bit; arrays are NumPy's.

    Raises:
      CorruptFileError: a file of the payload is missing, short or altered.
    """
    _check_files(header, "metadata")
    try:
        document = json.loads((header.payload / "metadata.json").read_bytes())
        names = [str(place) for place in range(document["arrays"])]
        stored = orbax_arrays.restore_numpy(header.payload / "metadata", names) if names else {}
        arrays = [stored[name] for name in names]
        return json_tree.decode(document["tree"], arrays, _TYPES)
    except (OSError, LookupError, TypeError, ValueError, RecursionError, CorruptFileError) as error:
        raise corrupt(header.directory, f"its metadata is damaged: {first_line(error)}") from error


# Writing


def _checked_parameters(directory: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by path, if all names and dtypes can be stored."""
    _check_names(directory, params, ())
    flat = {path: _storable(directory, path, leaf) for path, leaf in flatten(params).items()}
    dotted = Counter(path.replace("/", ".") for path in flat)  # how Orbax joins the names
    clashing = [path for path in flat if dotted[path.replace("/", ".")] > 1]
    if clashing:
        raise CheckpointError(f"{file_name(directory)}: parameters {shown(clashing)} differ only in dots")
    return flat


def _check_names(directory: Path, tree: Mapping[str, Any], parents: tuple[str, ...]) -> None:
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            place = "/".join(parents) or "the top"
            raise CheckpointError(
                f"{file_name(directory)}: parameter name {name!r} at {place} must be a string without '/'"
            )
        if isinstance(value, Mapping):
            _check_names(directory, value, (*parents, name))


def _storable(directory: Path, path: str, leaf: Any) -> Any:
    """The array itself, or a NumPy scalar or byte-swapped array as a native one."""
    if isinstance(leaf, np.ndarray | np.generic):
        leaf = np.asarray(leaf, dtype=leaf.dtype.newbyteorder("="))
    elif not isinstance(leaf, jax.Array):
        raise UnsupportedTensorError(
            f"{file_name(directory)}: parameter {path!r} is a {type(leaf).__name__}, not an array"
        )
    if not orbax_arrays.can_store(leaf.dtype):
        raise UnsupportedTensorError(
            f"{file_name(directory)}: parameter {path!r} has the dtype {leaf.dtype}, which Orbax cannot store"
        )
    return leaf


def _header_document(
    directory: Path, header: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    taken = [name for name in RESERVED if name in header]
    if taken:
        raise CheckpointError(f"{file_name(directory)}: the header names {shown(taken)} are the store's own")
    try:
        json.dumps(dict(header), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file_name(directory)}: the header is not plain JSON: {error}") from error
    shapes = {path: shape_text(leaf) for path, leaf in parameters.items()}
    return {"format_version": FORMAT_VERSION, **header, "parameters": shapes}


def _encoded(directory: Path, metadata: Any) -> tuple[Any, list[np.ndarray]]:
    try:
        return json_tree.encode(metadata, _TYPES)
    except CheckpointError as error:
        raise CheckpointError(f"{file_name(directory)}: metadata {error}") from None


def _check_target(directory: Path) -> None:
    """Refuses to save over anything but nothing, an unfinished save or a checkpoint that could be read."""
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise CheckpointError(f"{file_name(directory)}: is a file; give a directory to save into")
    with _reported(directory, "opened", CheckpointError):
        entries = [entry.name for entry in directory.iterdir()]
    if HEADER_FILE in entries:
        read_document(directory)
    elif not all(is_leftover(name) for name in entries):
        raise CheckpointError(
            f"{file_name(directory)}: is not empty and not a sparsejax checkpoint; choose another directory"
        )


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory, made if it is not there, with no other process saving into it."""
    durable.create_folder(directory)
    try:
        with durable.locked(directory):
            yield
    except BlockingIOError as error:
        raise CheckpointError(f"{file_name(directory)}: another process is saving here") from error


def _write_payload(payload: Path, parameters: Mapping[str, Any], tree: Any, arrays: list[np.ndarray]) -> None:
    """A new payload folder, wholly on the disk when it returns."""
    payload.mkdir()
    _write_arrays(payload / "params", parameters)
    _write_arrays(payload / "metadata", {str(place): array for place, array in enumerate(arrays)})
    durable.write_json(payload / "metadata.json", {"arrays": len(arrays), "tree": tree})
    for mark in payload.glob(f"*/{_ORBAX_MARK}"):  # Orbax tells where the saver's folder lay
        durable.replace_text(mark, "Checkpoint commit was successful\n")
    durable.sync([*payload.rglob("*"), payload, payload.parent])


def _write_arrays(folder: Path, arrays: Mapping[str, Any]) -> None:
    stored = {path: array for path, array in arrays.items() if array.size}
    if stored:
        orbax_arrays.save(folder, stored)


def _remove_leftovers(directory: Path) -> None:
    """Removes every payload and temporary file that ``sparsejax.json`` does not name."""
    try:
        current = read_document(directory)["payload"]
    except TruncatedFileError:
        current = None
    except CheckpointError:
        return
    for entry in directory.iterdir():
        if not is_leftover(entry.name) or entry.name == current:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _checksums(payload: Path) -> dict[str, str]:
    """Size and CRC-32 of each file, such as ``"1826 0f3a99d1"``."""
    files = sorted(path for path in payload.rglob("*") if path.is_file())
    return {
        path.relative_to(payload).as_posix(): f"{path.stat().st_size} {durable.crc32(path):08x}"
        for path in files
    }


# Reading


def _check_template(header: Header, wanted: Mapping[str, Any]) -> None:
    name, found = file_name(header.directory), header.parameters
    if missing := [path for path in wanted if path not in found]:
        raise MissingKeyError(f"{name}: the model needs parameters that are not there: {shown(missing)}")
    if unexpected := [path for path in found if path not in wanted]:
        raise UnexpectedKeyError(
            f"{name}: holds parameters that the model does not have: {shown(unexpected)}"
        )
    for path, leaf in wanted.items():
        saved, needed = shape_text(found[path]), shape_text(leaf)
        if saved != needed:
            raise ShapeError(f"{name}: parameter {path!r} is {saved}, the model needs {needed}")
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            raise ShapeError(f"{name}: parameter {path!r} is {saved}: switch jax_enable_x64 on to load it")


def _check_files(header: Header, prefix: str) -> None:
    """Compares sizes and checksums, so that damage is found before Orbax meets it."""
    for name, (size, checksum) in header.files.items():
        if not name.startswith(prefix):
            continue
        path, told = header.payload / name, f"{header.payload.name}/{name[:200]}"
        try:
            found = path.stat().st_size
            if found < size:
                text = f"{told} ends after {found} of {size} bytes"
                raise TruncatedFileError(f"{file_name(header.directory)}: {text}")
            if found > size or durable.crc32(path) != checksum:
                raise corrupt(header.directory, f"{told} was altered: wrong checksum")
        except (OSError, ValueError) as error:  # ValueError: no path can have such a name
            text = f"{told!r} cannot be read: {getattr(error, 'strerror', None) or 'an impossible name'}"
            raise corrupt(header.directory, text) from error


def _place(sharding: jax.sharding.Sharding | jax.Device | None) -> jax.sharding.Sharding:
    if sharding is None:
        anywhere: jax.Array = jax.device_put(np.zeros((), np.int8))
        return anywhere.sharding
    if isinstance(sharding, jax.Device):
        return jax.sharding.SingleDeviceSharding(sharding)
    return sharding


def _with_sharding(leaf: Any, default: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default)


def _like(template: Mapping[str, Any], flat: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        name: _like(leaf, flat, f"{prefix}{name}/") if isinstance(leaf, Mapping) else flat[f"{prefix}{name}"]
        for name, leaf in template.items()
    }


@contextmanager
def _reported(directory: Path, doing: str, kind: type[CheckpointError]) -> Iterator[None]:
    """Turns errors of the system and of Orbax into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = _SYSTEM_SAYS.search(str(error))
        reason = told[1].strip() if told else first_line(error)
        raise kind(f"{file_name(directory)}: cannot be {doing}: {reason}") from error
