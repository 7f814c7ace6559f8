"""Metadata values as the bytes of a GGUF file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import GGUFError
from sparsejax.checkpoint.gguf.string_array import StringArray
from sparsejax.checkpoint.gguf.value_types import ARRAY, BY_NAME, STRING, ValueType

_RANGES = {
    "u32": (0, 1 << 32),
    "i32": (-(1 << 31), 1 << 31),
    "u64": (0, 1 << 64),
    "i64": (-(1 << 63), 1 << 63),
}


def encoded_string(text: Any, what: str) -> bytes:
    """A text with its length before it.

    Raises:
      GGUFError: it is no text, or has no UTF-8.
    """
    if not isinstance(text, str):
        raise GGUFError(f"{what} is {text!r}; a text is needed")
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise GGUFError(f"{what} {text[:80]!r} has no UTF-8 form") from error
    return struct.pack("<Q", len(raw)) + raw


def encoded_value(key: str, value: Any, kind: str | None) -> bytes:
    """A value with its type before it.

    Args:
      key: for errors.
      value: number, bool, text, or a sequence or array of one kind of these.
      kind: its type, such as "u32" or "[str]"; None finds one.

    Raises:
      GGUFError: the value is not of the type, or of none that the format has.

    Example:
      >>> encoded_value("n", 7, "u8").hex()
      '0000000007'
    """
    kind = kind or _kind_of(key, value)
    if kind == "str":
        return struct.pack("<I", STRING) + encoded_string(value, f"the value of {key!r}")
    if kind.startswith("["):
        return _encoded_array(key, value, kind[1:-1])
    number = _number_type(key, kind)
    return struct.pack("<I", number.code) + _packed(key, [value], number)


def _encoded_array(key: str, values: Any, element: str) -> bytes:
    is_row = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str | bytes)
    if not is_row or getattr(values, "ndim", 1) != 1:
        raise GGUFError(f"the value of {key!r} is no row of values, as [{element}] is")
    if element == "str":
        texts = b"".join(encoded_string(text, f"a string of {key!r}") for text in values)
        return struct.pack("<IIQ", ARRAY, STRING, len(values)) + texts
    number = _number_type(key, element)
    return struct.pack("<IIQ", ARRAY, number.code, len(values)) + _packed(key, values, number)


def _packed(key: str, values: Iterable[Any], number: ValueType) -> bytes:
    """Numbers of one type, none of which is changed but floats, which are rounded."""
    if isinstance(values, np.ndarray) and values.dtype.newbyteorder("=") == number.dtype.newbyteorder("="):
        return np.ascontiguousarray(values, number.dtype).tobytes()
    try:
        plain = [value.item() if isinstance(value, np.generic) else value for value in values]
        if number.name == "bool":
            wrong = [value for value in plain if not isinstance(value, bool)]
        else:
            kinds = int | float if number.dtype.kind == "f" else int
            wrong = [value for value in plain if isinstance(value, bool) or not isinstance(value, kinds)]
        if wrong:
            raise GGUFError(f"the value of {key!r} holds {wrong[0]!r}, which is no {number.name}")
        return struct.pack(f"<{len(plain)}{number.layout.format[-1]}", *plain)
    except (struct.error, OverflowError) as error:
        raise GGUFError(f"the value of {key!r} does not fit {number.name}: {error}") from error


def _number_type(key: str, name: str) -> ValueType:
    if name not in BY_NAME:
        raise GGUFError(f"the type {name!r} of {key!r} is not known; give one of {', '.join(BY_NAME)} or str")
    return BY_NAME[name]


def _kind_of(key: str, value: Any) -> str:
    """The type of a value that nothing is said about."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim < 2:
        name = _dtype_name(key, value.dtype)
        return f"[{name}]" if value.ndim else name
    if isinstance(value, StringArray):
        return "[str]"
    if isinstance(value, list | tuple):
        return f"[{_element_type(key, value)}]"
    if type(value) is int:
        return _integer_type(key, [value], ("u32", "i32", "u64", "i64"))
    simple = {bool: "bool", float: "f32", str: "str"}
    if type(value) not in simple:
        raise GGUFError(f"the value of {key!r} is a {type(value).__name__}, which the format does not have")
    return simple[type(value)]


def _element_type(key: str, values: Sequence[Any]) -> str:
    if not values:
        raise GGUFError(f"the value of {key!r} is empty, so that its type must be given, such as '[str]'")
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return _integer_type(key, values, ("i32", "i64", "u64"))
    if kinds <= {int, float}:
        return "f32"
    if len(kinds) == 1 and kinds <= {bool, str}:
        return "str" if kinds == {str} else "bool"
    raise GGUFError(f"the value of {key!r} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}")


def _integer_type(key: str, values: Sequence[int], names: Sequence[str]) -> str:
    for name in names:
        least, end = _RANGES[name]
        if all(least <= value < end for value in values):
            return name
    raise GGUFError(f"the value of {key!r} does not fit 64 bits")


def _dtype_name(key: str, dtype: np.dtype) -> str:
    if dtype == np.bool_:
        return "bool"
    for number in BY_NAME.values():
        if number.name != "bool" and number.dtype.newbyteorder("=") == dtype.newbyteorder("="):
            return number.name
    raise GGUFError(f"the value of {key!r} has dtype {dtype}, which the format does not have")
