"""JSON checkpoints as Rust's serde writes them: arrays are ``{"v": 1, "dim": [2, 3], "data": [...]}``.

Source: the serde form of the ndarray crate, specs/sparse_inference.md sections 2, 3 and 5.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError, ExportError, TruncatedFileError
from sparsejax.checkpoint.replace_file import replaced

_ARRAY_KEYS = {"v", "dim", "data"}
_MAX_DIMENSIONS = 6  # what the crate's dynamic arrays keep without allocation, and more than any model has


def is_json(path: str | os.PathLike[str]) -> bool:
    """Whether a file is to be read as JSON, by its name or its first character.

    Example:
      >>> is_json("checkpoints/ultra_sparse_sine.pt")
      False
    """
    if Path(path).suffix.lower() == ".json":
        return True
    with open(path, "rb") as stream:
        return stream.read(64).lstrip().startswith(b"{")


def read_json(path: str | os.PathLike[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The object of a JSON file, with NumPy arrays in it.

    Args:
      path: a file, already known to be readable.

    Returns:
      the object, in which each ``{"v", "dim", "data"}`` is a float32 array, and each list of numbers at its
      top an array too, int64 if all are whole and float32 otherwise; and the names of those lists.

    Raises:
      TruncatedFileError: it ends too early.
      CorruptFileError: it is no JSON, no object, names a thing twice, or an array does not fill its shape.

    Example:
      >>> import os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "w.json")
      >>> write_json({"w": np.eye(2, dtype=np.float32), "name": "toy"}, path)
      >>> read_json(path)[0]["w"].shape
      (2, 2)
    """
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"no JSON: not UTF-8 at byte {error.start}") from error
    try:
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise TruncatedFileError(f"ends at {place}, within its JSON; fetch the file again") from error
        raise CorruptFileError(f"no JSON: {error.msg} at {place}") from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise CorruptFileError(f"no JSON that can be read: {str(error)[:200]}") from error
    if not isinstance(tree, dict):
        raise CorruptFileError(f"holds a {type(tree).__name__}, not an object with named arrays")
    lists = tuple(name for name, value in tree.items() if _is_row(value))
    return tree | {name: _row(name, tree[name]) for name in lists}, lists


def write_json(
    tree: Mapping[str, Any], path: str | os.PathLike[str], lists: tuple[str, ...] | frozenset[str] = ()
) -> None:
    """Write an object with arrays in it; an old file stays until the new one is whole.

    Args:
      tree: arrays and plain JSON values by name.
      path: file to write.
      lists: names of the arrays that are written as plain lists.

    Raises:
      ExportError: a value has no JSON form, or the file cannot be written.
    """
    document = {name: _plain(value, name in lists) for name, value in tree.items()}
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(f"cannot be written as JSON: {error}") from error
    with replaced(path) as stream:
        stream.write(text.encode())


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        # `add` gives None, which is false.
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise CorruptFileError(f"the name {twice[:80]!r} occurs twice in one object")
    return _array(found) if found.keys() == _ARRAY_KEYS else found


def _array(fields: Mapping[str, Any]) -> np.ndarray:
    shape, data = fields["dim"], fields["data"]
    if type(fields["v"]) is not int or fields["v"] != 1:
        raise CorruptFileError(f"an array is of version {str(fields['v'])[:20]}; version 1 is read")
    if not isinstance(data, list) or not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMENSIONS:
        raise CorruptFileError('an array has no rows of numbers as its "dim" and "data"')
    if any(type(size) is not int or not 0 <= size < 1 << 48 for size in shape):
        raise CorruptFileError(f"an array has the shape {' '.join(str(shape).split())[:80]}")
    if math.prod(shape) != len(data):
        raise CorruptFileError(f"an array of shape {tuple(shape)} has {len(data)} numbers")
    return _numbers("an array", data, np.float32).reshape(shape)


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)


def _row(name: str, values: list[Any]) -> np.ndarray:
    whole = all(type(value) is int for value in values)
    return _numbers(f"{name[:80]!r}", values, np.int64 if whole else np.float32)


def _numbers(what: str, values: list[Any], dtype: Any) -> np.ndarray:
    if wrong := set(map(type, values)) - {int, float}:
        raise CorruptFileError(f"{what} holds a {wrong.pop().__name__} among its numbers")
    try:
        with np.errstate(over="ignore"):  # infinity is told by name when it is loaded
            return np.array(values, np.float64 if dtype == np.float32 else dtype).astype(dtype, copy=False)
    except OverflowError as error:
        raise CorruptFileError(f"{what} holds a number that does not fit {np.dtype(dtype)}") from error


def _plain(value: Any, as_list: bool) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner, False) for name, inner in value.items()}
    if not isinstance(value, np.ndarray | np.generic):
        return value
    array = np.asarray(value)
    numbers = array.astype(np.float64) if array.dtype.kind not in "iub" else array
    if as_list or not array.ndim:
        return numbers.tolist()
    return {"v": 1, "dim": list(array.shape), "data": numbers.reshape(-1).tolist()}


def _refuse(name: str) -> Any:
    raise CorruptFileError(f"holds {name}, which is no JSON; did training diverge?")
