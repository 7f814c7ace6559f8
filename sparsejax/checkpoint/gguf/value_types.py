"""The types of metadata values: their codes, names and layouts."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ValueType:
    """A number type of the metadata.

    Attributes:
      code: in the file.
      name: such as "u32", as ggml prints it.
      layout: of one value.
      dtype: of an array of them, little-endian.
    """

    code: int
    name: str
    layout: struct.Struct
    dtype: np.dtype


def _value_type(code: int, name: str, letter: str, dtype: str) -> ValueType:
    return ValueType(code, name, struct.Struct(f"<{letter}"), np.dtype(dtype))


BOOL, STRING, ARRAY = 7, 8, 9

NUMBERS = {
    code: _value_type(code, name, letter, dtype)
    for code, name, letter, dtype in (
        (0, "u8", "B", "<u1"),
        (1, "i8", "b", "<i1"),
        (2, "u16", "H", "<u2"),
        (3, "i16", "h", "<i2"),
        (4, "u32", "I", "<u4"),
        (5, "i32", "i", "<i4"),
        (6, "f32", "f", "<f4"),
        (BOOL, "bool", "B", "<u1"),
        (10, "u64", "Q", "<u8"),
        (11, "i64", "q", "<i8"),
        (12, "f64", "d", "<f8"),
    )
}
"""By code."""

BY_NAME = {number.name: number for number in NUMBERS.values()}
"""Number types by name; texts are "str", arrays are "[name]" of their elements."""
