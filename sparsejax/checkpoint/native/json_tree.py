"""Nested Python data as JSON plus byte arrays, and back without loss.

JSON ``null``, booleans, strings, finite numbers and lists stand for themselves; everything else is an object
with one key that names its kind: ``{"tuple": [...]}``, ``{"float": "7ff8..."}``, ``{"array": [...]}``. No
data can be mistaken for a tag, since dicts are tagged too.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (makes NumPy know "bfloat16" and its kin by name)
import numpy as np

from sparsejax.checkpoint.errors import CheckpointError, CorruptFileError

Json = Any
Types = Mapping[str, type]

_NOT_OURS = (
    *(LookupError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, RecursionError),
    struct.error,
)
MAX_DEPTH = 100
MAX_VALUES = 10_000_000  # a small file whose lists share each other could unfold without end


def encode(tree: Any, types: Types | None = None) -> tuple[Json, list[np.ndarray]]:
    """A tree of Python data as JSON and the bytes of its arrays.

    Args:
      tree: nested dict, OrderedDict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex,
        bool, None, NumPy scalars and arrays of any plain dtype; dict keys may be any hashable of these.
      types: further subclasses of str or tuple by the name that stands for them in the JSON.

    Returns:
      the JSON value, and one flat uint8 array for each distinct array that is not empty. An array that
      appears in several places is listed once.

    Raises:
      CheckpointError: something in the tree is of another type, or nests too deeply; the message names its
        place, such as ``['optimizer']['state'][0]``.

    Example:
      >>> encode({"shape": (2, 3)})
      ({'dict': {'shape': {'tuple': [2, 3]}}}, [])
    """
    encoder = _Encoder(types or {})
    try:
        return encoder.node(tree), encoder.arrays
    except _NotEncodableError as error:
        raise CheckpointError(str(error)) from None


def decode(node: Json, arrays: Sequence[np.ndarray], types: Types | None = None) -> Any:
    """The tree that `encode` was given, from its two results.

    Args:
      node: JSON value as `encode` returned it.
      arrays: flat uint8 arrays in the order of `encode`; the tree's arrays are views of them.
      types: the mapping that `encode` was given.

    Raises:
      CorruptFileError: the JSON is not one that `encode` writes, or does not fit the arrays or types.
    """
    try:
        return _Decoder(arrays, types or {}).value(node)
    except _NOT_OURS as error:
        raise CorruptFileError(
            f"not a tree written by sparsejax ({type(error).__name__}: {str(error)[:200]!r})"
        ) from error


class _NotEncodableError(Exception):
    """Collects the keys above the offending value while it travels up."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.keys: list[Any] = []

    def __str__(self) -> str:
        place = "".join(f"[{key!r}]" for key in reversed(self.keys)) or "the top"
        return f"at {place}: {self.args[0]}"


class _Encoder:
    def __init__(self, types: Types):
        self.names = {kind: name for name, kind in types.items()}
        self.arrays: list[np.ndarray] = []
        self.places: dict[int, int] = {}
        self.depth = 0
        self.values = 0

    def node(self, value: Any) -> Json:
        self.values += 1
        if self.values > MAX_VALUES:
            raise _NotEncodableError(f"more than {MAX_VALUES} values")
        kind = type(value)
        if kind in self.names:
            return {"type": [self.names[kind], self.node(_plain(value))]}
        if kind in _WRITERS:
            return _WRITERS[kind](self, value)
        if isinstance(value, np.generic):
            return {"scalar": [_dtype_name(value.dtype), np.asarray(value).tobytes().hex()]}
        raise _NotEncodableError(f"{kind.__module__}.{kind.__qualname__} cannot be stored in a checkpoint")

    def nodes(self, pairs: Iterable[tuple[Any, Any]]) -> list[Json]:
        """Encodes the values of (key, value) pairs, one level down."""
        if self.depth == MAX_DEPTH:
            raise _NotEncodableError(f"nests deeper than {MAX_DEPTH} levels, or contains itself")
        self.depth += 1
        result = []
        for key, value in pairs:
            try:
                result.append(self.node(value))
            except _NotEncodableError as error:
                error.keys.append(key)
                raise
        self.depth -= 1
        return result

    def sequence(self, value: Iterable[Any]) -> list[Json]:
        return self.nodes(enumerate(value))

    def mapping(self, value: dict[Any, Any]) -> Json:
        if all(type(key) is str for key in value):
            return {"dict": dict(zip(value, self.nodes(value.items()), strict=True))}
        return {"items": self.pairs(value)}

    def pairs(self, value: dict[Any, Any]) -> list[Json]:
        keys = self.nodes((key, key) for key in value)
        return [list(pair) for pair in zip(keys, self.nodes(value.items()), strict=True)]

    def array(self, value: np.ndarray) -> Json:
        name = _dtype_name(value.dtype)
        return {"array": [name, list(value.shape), self.place(value) if value.nbytes else None]}

    def place(self, value: np.ndarray) -> int:
        if id(value) not in self.places:
            self.places[id(value)] = len(self.arrays)
            self.arrays.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        return self.places[id(value)]


def _plain(value: Any) -> str | tuple[Any, ...]:
    return str.__str__(value) if isinstance(value, str) else tuple(value)


def _dtype_name(dtype: np.dtype) -> str:
    for name in (dtype.str, dtype.name):  # ml_dtypes have only a name; byte order is only in str
        try:
            if np.dtype(name) == dtype and not dtype.hasobject:
                return name
        except TypeError:
            continue
    raise _NotEncodableError(f"a NumPy array of dtype {dtype} cannot be stored in a checkpoint")


def _float(value: float) -> Json:
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _complex(value: complex) -> Json:
    return {"complex": [_float(value.real), _float(value.imag)]}


def _int(value: int) -> Json:
    return value if abs(value) < 1 << 63 else {"int": hex(value)}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


_WRITERS: dict[type, Callable[[_Encoder, Any], Json]] = {
    type(None): lambda _, value: value,
    bool: lambda _, value: value,
    str: lambda _, value: value,
    int: lambda _, value: _int(value),
    float: lambda _, value: _float(value),
    complex: lambda _, value: _complex(value),
    bytes: lambda _, value: {"bytes": _base64(value)},
    bytearray: lambda _, value: {"bytearray": _base64(value)},
    list: _Encoder.sequence,
    tuple: lambda encoder, value: {"tuple": encoder.sequence(value)},
    set: lambda encoder, value: {"set": encoder.sequence(value)},
    frozenset: lambda encoder, value: {"frozenset": encoder.sequence(value)},
    dict: _Encoder.mapping,
    OrderedDict: lambda encoder, value: {"OrderedDict": encoder.pairs(value)},
    np.ndarray: _Encoder.array,
    np.memmap: _Encoder.array,
}


class _Decoder:
    def __init__(self, arrays: Sequence[np.ndarray], types: Types):
        self.arrays = arrays
        self.types = types
        self.views: dict[int, np.ndarray] = {}

    def value(self, node: Json) -> Any:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((tag, content),) = node.items()
        return _READERS[tag](self, content)

    def sequence(self, content: list[Json]) -> Iterable[Any]:
        return (self.value(item) for item in content)

    def mapping(self, content: dict[str, Json]) -> dict[str, Any]:
        return {key: self.value(item) for key, item in content.items()}

    def pairs(self, content: list[Json]) -> Iterable[tuple[Any, Any]]:
        return ((self.value(key), self.value(item)) for key, item in content)

    def named(self, content: list[Json]) -> Any:
        name, node = content
        return self.types[name](self.value(node))

    def array(self, content: list[Json]) -> np.ndarray:
        name, shape, place = content
        if place is None:
            if 0 not in shape or np.dtype(name).hasobject:
                raise ValueError(f"an array of {name!r} and shape {shape} has no bytes")
            return np.zeros(shape, np.dtype(name))
        if place not in self.views:
            self.views[place] = self.arrays[place].view(np.dtype(name)).reshape(shape)
        return self.views[place]


def _scalar(content: list[str]) -> Any:
    name, digits = content
    return np.frombuffer(bytes.fromhex(digits), np.dtype(name))[0] if digits else np.zeros((), name)[()]


_READERS: dict[str, Callable[[_Decoder, Any], Any]] = {
    "int": lambda _, content: int(content, 16),
    "float": lambda _, content: struct.unpack(">d", bytes.fromhex(content))[0],
    "complex": lambda decoder, content: complex(*decoder.sequence(content)),
    "bytes": lambda _, content: base64.b64decode(content, validate=True),
    "bytearray": lambda _, content: bytearray(base64.b64decode(content, validate=True)),
    "tuple": lambda decoder, content: tuple(decoder.sequence(content)),
    "set": lambda decoder, content: set(decoder.sequence(content)),
    "frozenset": lambda decoder, content: frozenset(decoder.sequence(content)),
    "dict": _Decoder.mapping,
    "items": lambda decoder, content: dict(decoder.pairs(content)),
    "OrderedDict": lambda decoder, content: OrderedDict(decoder.pairs(content)),
    "type": _Decoder.named,
    "scalar": lambda _, content: _scalar(content),
    "array": _Decoder.array,
}
