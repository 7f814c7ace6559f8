"""NumPy scalars, arrays and dtypes as pickles spell them, rebuilt from plain numeric data only."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from sparsejax.checkpoint.errors import UnsupportedTensorError

_CODES = frozenset(
    f"{kind}{size}" for kind, size in (("b", 1), ("f", 2), ("f", 4), ("f", 8), ("c", 8), ("c", 16))
)
NUMERIC_CODES = _CODES | {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


class PickledDtype:
    """A ``numpy.dtype`` whose byte order comes with a later BUILD."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *flags: object):
        if len(flags) > 2 or any(type(flag) not in (bool, int) or flag not in (0, 1) for flag in flags):
            raise ValueError("a NumPy dtype's flags are malformed")
        if not isinstance(code, str) or code.lstrip("<>|=") not in NUMERIC_CODES:
            shown_code = code[:20] if isinstance(code, str) else type(code).__name__
            raise UnsupportedTensorError(
                f"a NumPy value of dtype {shown_code!r} is refused: only plain numbers and booleans are read"
            )
        self.dtype = np.dtype(code)

    def build(self, state: object) -> None:
        """Takes the byte order from the pickled state ``(version, order, ...)``."""
        if (
            not isinstance(state, tuple)
            or len(state) != 8
            or state[0] != 3
            or state[1] not in ("<", ">", "|", "=")
        ):
            raise ValueError("a NumPy dtype's state is malformed")
        if state[2:] != (None, None, None, -1, -1, 0):
            raise UnsupportedTensorError("a structured NumPy dtype is refused: only plain numbers are read")
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """A ``numpy.ndarray`` whose content comes with a later BUILD."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array = np.empty(0)

    def build(self, state: object) -> None:
        """Takes ``(version, shape, dtype, fortran_order, data)``."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or type(state[3]) is not bool:
            raise ValueError("a NumPy array's state is malformed")
        _, shape, dtype, fortran_order, raw = state
        self.array = _array(raw, dtype, shape, "F" if fortran_order else "C")


def reconstruct(_kind: object, shape: object, code: object) -> PickledArray:
    """``numpy.core.multiarray._reconstruct``: an array that BUILD fills; NumPy always starts an empty one."""
    if shape != (0,) or code not in (b"b", "b"):
        raise ValueError("a NumPy array starts from something else than an empty one")
    return PickledArray()


def from_buffer(raw: object, dtype: object, shape: object, order: object, *_axes: object) -> PickledArray:
    """``numpy.core.numeric._frombuffer``: an array from its bytes (protocol 5)."""
    if order not in ("C", "F"):
        raise UnsupportedTensorError(f"a NumPy array in axis order {str(order)[:10]!r} is refused")
    pickled = PickledArray()
    pickled.array = _array(raw, dtype, shape, "F" if order == "F" else "C")
    return pickled


def scalar(dtype: object, raw: object) -> np.generic:
    """``numpy.core.multiarray.scalar``: one number from its bytes."""
    number: np.generic = _array(raw, dtype, (1,), "C")[0]
    return number


def _array(raw: object, dtype: object, shape: object, order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(dtype, PickledDtype):
        raise ValueError("a NumPy value without a dtype")
    if isinstance(raw, str):  # from Python 2: a byte string that happened to be text
        raw = raw.encode("utf-8")
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("a NumPy value without its bytes")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**62 for n in shape):
        raise ValueError("a NumPy array's shape is malformed")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise ValueError("a NumPy array's bytes do not fill its shape")
    flat: np.ndarray = np.frombuffer(raw, dtype.dtype)
    return flat.astype(dtype.dtype.newbyteorder("="), copy=False).reshape(shape, order=order)
