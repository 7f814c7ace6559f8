"""From numbers to the bytes of a file: the formats of 32 elements as ggml does it, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from sparsejax.ops.quantized.blocks import Fields, join
from sparsejax.ops.quantized.encode_k import finite_inverse, q4_k_fields, q6_k_fields
from sparsejax.ops.quantized.formats import BlockFormat, format_named

_CHUNK = 1 << 13  # rows of 256 elements that are encoded together, so that what lies between stays small


def encode(values: ArrayLike, format: str | BlockFormat) -> np.ndarray:  # noqa: A002
    """The bytes of numbers in a format.

    The formats of 32 elements, and plain ones, give the bytes that the ``gguf`` package gives. Q4_K and Q6_K
    search the scales with the least squared error, so their bytes are others than ggml's, and no worse.

    Args:
      values: finite numbers; all together, and in a file each row, whole blocks.
      format: a name in ``FORMATS`` other than q2_k, q3_k and q5_k, which are only decoded.

    Returns:
      uint8 (bytes,).

    Raises:
      ValueError: no such format, no whole blocks, or a number that is NaN, infinite or too large.

    Example:
      >>> encode(np.full(32, -8.0), "q4_0").tolist()
      [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

    Source: ggml's quantize_row_*_ref, specs/sparse_inference.md section 6.
    """
    layout = format_named(format)
    flat = np.asarray(values)
    if flat.dtype.kind not in "fiub" and flat.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"only real numbers have a {layout.name} form, not {flat.dtype}")
    with np.errstate(over="ignore"):
        flat = flat.astype(np.float32, copy=False).reshape(-1)
    refuse_non_finite(flat, f"{layout.name} form")
    if layout.plain:
        return _encode_plain(flat, layout)
    if layout.name not in _ENCODERS:
        raise ValueError(
            f"{layout.name} is only decoded; encode as one of {('f32', 'f16', 'bf16', *_ENCODERS)}"
        )
    if flat.size % layout.block:
        raise ValueError(f"{flat.size} elements are not whole {layout.name} blocks of {layout.block}")
    blocks = flat.reshape(-1, layout.block)
    out = np.empty((len(blocks), layout.bytes), np.uint8)
    step = _CHUNK * 256 // layout.block
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        with np.errstate(all="ignore"):  # what overflows or has no inverse is refused or 0, below
            fields = _ENCODERS[layout.name](blocks[part])
        _refuse_overflow(fields, layout)
        out[part] = join(fields, layout)
    return out.reshape(-1)


def round_half_away(values: np.ndarray | np.floating[Any]) -> Any:
    """To the nearest integer, halves away from zero, exactly as C's ``round``.

    Example:
      >>> round_half_away(np.float32([0.5, 1.5, -2.5, 0.49999997]))
      array([ 1.,  2., -3.,  0.], dtype=float32)
    """
    size = np.abs(values)
    whole = np.floor(size)
    rounded = np.copysign(whole + (size - whole >= 0.5), values)
    return rounded.astype(values.dtype, copy=False)


def refuse_non_finite(values: np.ndarray, what: str) -> None:
    """An error if a number is NaN or infinite.

    Args:
      values: of any shape.
      what: there is not of such numbers, for the message.

    Raises:
      ValueError: it names how many there are, and the first.
    """
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite.reshape(-1)))
        raise ValueError(
            f"{values.size - int(finite.sum())} of {values.size} numbers are NaN or infinite in float32, the "
            f"first is element {first}; they have no {what}"
        )


def _encode_plain(flat: np.ndarray, layout: BlockFormat) -> np.ndarray:
    if layout.name == "f32":
        return flat.astype("<f4").view(np.uint8)
    kind = np.dtype("<f2") if layout.name == "f16" else np.dtype(ml_dtypes.bfloat16)
    with np.errstate(over="ignore"):
        narrow = flat.astype(kind)
    if not np.isfinite(narrow.astype(np.float32)).all():
        raise ValueError(f"the largest number, {np.abs(flat).max():g}, does not fit {layout.name}")
    return narrow.view(np.uint8)


def _refuse_overflow(fields: Fields, layout: BlockFormat) -> None:
    for halves in (fields.d, fields.m):
        if halves is not None and not np.isfinite(halves).all():
            raise ValueError(f"numbers are too large for {layout.name}: a float16 scale of a block overflows")


def _q8_0(x: np.ndarray) -> Fields:
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    codes = round_half_away(x * finite_inverse(d)).astype(np.int8)
    return Fields(codes, d[:, 0].astype(np.float16))


def _symmetric(x: np.ndarray, zero: int) -> Fields:
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    d = largest / np.float32(-zero)
    # A product and a sum with one rounding, as the C code does where the processor has it.
    places = x.astype(np.float64) * finite_inverse(d).astype(np.float64) + (zero + 0.5)
    codes = np.minimum(places.astype(np.float32), 2 * zero - 1).astype(np.uint8)
    return Fields(codes, d[:, 0].astype(np.float16))


def _with_minimum(x: np.ndarray, most: int) -> Fields:
    low = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - low) / np.float32(most)
    codes = np.minimum((x - low) * finite_inverse(d) + np.float32(0.5), most).astype(np.uint8)
    return Fields(codes, d[:, 0].astype(np.float16), low[:, 0].astype(np.float16))


_ENCODERS: Mapping[str, Callable[[np.ndarray], Fields]] = {
    "q4_0": lambda x: _symmetric(x, 8),
    "q4_1": lambda x: _with_minimum(x, 15),
    "q5_0": lambda x: _symmetric(x, 16),
    "q5_1": lambda x: _with_minimum(x, 31),
    "q8_0": _q8_0,
    "q4_k": q4_k_fields,
    "q6_k": q6_k_fields,
}
