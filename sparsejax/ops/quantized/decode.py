"""From the bytes of a file to numbers, as ggml does it, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from sparsejax.ops.quantized.blocks import Fields, split
from sparsejax.ops.quantized.formats import BlockFormat, format_named

PLAIN_DTYPES = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "bf16": np.dtype(ml_dtypes.bfloat16)}

_CHUNK = 1 << 15  # blocks that are decoded together, so that what lies between stays in the cache


def decode(raw: np.ndarray | bytes, format: str | BlockFormat, count: int | None = None) -> np.ndarray:  # noqa: A002
    """The numbers that bytes of a file mean.

    Args:
      raw: uint8 array of any shape, or bytes: whole blocks.
      format: a name in ``FORMATS``.
      count: elements that ``raw`` must hold; None takes what is there.

    Returns:
      float32 (count,), equal to those of ggml bit by bit.

    Raises:
      ValueError: no such format, or the bytes are not those of ``count`` elements.

    Example:
      >>> decode(np.array([0, 60] + 32 * [3], np.uint8), "q8_0")[:4]
      array([3., 3., 3., 3.], dtype=float32)

    Source: ggml's dequantize_row_*, specs/sparse_inference.md section 6.
    """
    layout = format_named(format)
    flat = as_bytes(raw)
    blocks = checked_blocks(flat, layout, count)
    if layout.plain:
        plain: np.ndarray = flat.view(PLAIN_DTYPES[layout.name])
        return plain.astype(np.float32)
    out = np.empty((len(blocks), layout.block), np.float32)
    for start in range(0, len(blocks), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = values_of(split(blocks[part], layout), layout)
    return out.reshape(-1)


def values_of(fields: Fields, layout: BlockFormat) -> np.ndarray:
    """float32 (n, block): what the fields of n blocks mean.

    Args:
      fields: of n blocks.
      layout: their format.
    """
    codes = fields.codes.astype(np.float32)
    if layout.zero:
        codes -= np.float32(layout.zero)
    codes = codes.reshape(len(codes), -1, layout.group)
    scale = fields.d.astype(np.float32)[:, None]
    if fields.scales is not None:
        scale = scale * fields.scales.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # scales of hostile files may be NaN or infinite
        codes *= scale[:, :, None]
        if fields.m is not None:
            m = fields.m.astype(np.float32)[:, None]
            codes += (
                m[:, :, None] if fields.mins is None else -(m * fields.mins.astype(np.float32))[:, :, None]
            )
    return codes.reshape(len(codes), -1)


def as_bytes(raw: np.ndarray | bytes | memoryview) -> np.ndarray:
    """The bytes of a contiguous array or buffer, flat, without a copy where that is possible.

    Example:
      >>> as_bytes(b"ab")
      array([97, 98], dtype=uint8)
    """
    if isinstance(raw, np.ndarray):
        return np.ascontiguousarray(raw).reshape(-1).view(np.uint8)
    return np.frombuffer(raw, np.uint8)


def checked_blocks(flat: np.ndarray, layout: BlockFormat, count: int | None) -> np.ndarray:
    """The bytes as (n, bytes of a block).

    Args:
      flat: uint8, all bytes.
      layout: the format.
      count: elements that they must hold; None takes any whole number of blocks.

    Raises:
      ValueError: there are not as many bytes, or no whole blocks.

    Example:
      >>> checked_blocks(np.zeros(35, np.uint8), format_named("q8_0"), 32)
      Traceback (most recent call last):
      ValueError: q8_0 needs 34 bytes for 32 elements, but 35 were given
    """
    if count is None:
        if flat.size % layout.bytes:
            raise ValueError(f"{flat.size} bytes are not whole {layout.name} blocks of {layout.bytes} bytes")
    elif count < 0 or count % layout.block:
        raise ValueError(f"{count} elements are not whole {layout.name} blocks of {layout.block}")
    elif flat.size != count // layout.block * layout.bytes:
        wanted = count // layout.block * layout.bytes
        raise ValueError(
            f"{layout.name} needs {wanted} bytes for {count} elements, but {flat.size} were given"
        )
    return flat.reshape(-1, layout.bytes)
