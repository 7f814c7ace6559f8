"""How blocks lie in memory: each field a plane of its own, tiled so that a vector holds neighbouring rows.

A matrix of r rows and c columns is cut into tiles of ``lanes`` rows (zeros complete the last one) and
sub-blocks of 32 columns. In the order "rows" the planes are, with ``t`` tiles and ``b`` sub-blocks:

=========  =========================  ==============================================================
low        (t, b, 32 low_bits / 8, l) lowest bits of the codes; of 4 bits, byte k holds elements k, k + 16
high       (t, b, 32 high_bits / 8, l) the other bits, likewise
d, m       (t, b or b / 8, l)         float16 of each block
scales     (t, b, 32 / group, l)      integers of K formats; of Q2_K the minima are the upper 4 bits
mins       (t, b, 1, l)               of Q4_K and Q5_K
=========  =========================  ==============================================================

In the order "columns" the first two axes change places, so that 32 columns of all rows lie together. A
product then sums along axes that are not the last, which is what compilers for CPUs make fast code of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from sparsejax.ops.quantized.blocks import Fields, join, split
from sparsejax.ops.quantized.formats import SUB_BLOCK, BlockFormat

Order = Literal["rows", "columns"]
"""What lies together: tiles of rows with all their columns, or sub-blocks of columns with all their rows."""

ROW_TILE = 32
"""Rows, or neurons, that are taken together; the lanes of a format are as many or half of them."""


class Cut(NamedTuple):
    """How planes are cut: what lies together, and the rows of a tile."""

    order: Order
    lanes: int


def default_lanes(layout: BlockFormat) -> int:
    """Rows of a tile, as measured to be fastest on CPU.

    Example:
      >>> from sparsejax.ops.quantized.formats import FORMATS
      >>> default_lanes(FORMATS["q8_0"]), default_lanes(FORMATS["q4_0"])
      (16, 32)
    """
    return 16 if layout.bits == 8 else ROW_TILE


def to_planes(blocks: np.ndarray, layout: BlockFormat, rows: int, cut: Cut) -> dict[str, np.ndarray]:
    """The planes of a matrix in a file.

    Args:
      blocks: uint8 (rows * blocks of a row, bytes of a block).
      layout: a format of blocks.
      rows: of the matrix.
      cut: how the planes are cut.
    """
    fields = split(blocks, layout)
    low, high = layout.low_bits, layout.bits - layout.low_bits
    if layout.bits == 8:
        planes = {"low": _tiled(fields.codes, rows, SUB_BLOCK, cut)}
    else:
        codes = _tiled(fields.codes, rows, SUB_BLOCK, cut)
        planes = {"low": _pack(codes & np.uint8((1 << low) - 1), low)}
        if high:
            planes["high"] = _pack(codes >> np.uint8(low), high)
    planes["d"] = _tiled(fields.d, rows, 1, cut)[..., 0, :]
    if fields.m is not None:
        planes["m"] = _tiled(fields.m, rows, 1, cut)[..., 0, :]
    if fields.scales is not None:
        scales, mins = fields.scales, fields.mins
        if layout.bits == 2 and mins is not None:
            scales, mins = scales | (mins << np.uint8(4)), None
        planes["scales"] = _tiled(scales, rows, SUB_BLOCK // layout.group, cut)
        if mins is not None:
            planes["mins"] = _tiled(mins, rows, SUB_BLOCK // layout.group, cut)
    return planes


def from_planes(planes: Mapping[str, np.ndarray], layout: BlockFormat, rows: int, order: Order) -> np.ndarray:
    """The inverse of `to_planes`: uint8 (rows * blocks of a row, bytes of a block).

    Args:
      planes: of the matrix.
      layout: its format.
      rows: of the matrix.
      order: of the planes.
    """
    low, high = layout.low_bits, layout.bits - layout.low_bits
    codes = planes["low"] if layout.bits == 8 else _unpack(planes["low"], low)
    if high:
        codes = codes | (_unpack(planes["high"], high) << np.uint8(low))
    d = _flat(planes["d"][..., None, :], rows, order)
    blocks = d.size
    scales = mins = None
    if "scales" in planes:
        scales = _flat(planes["scales"], rows, order).reshape(blocks, -1)
        if layout.bits == 2:
            scales, mins = scales & np.uint8(15), scales >> np.uint8(4)
        elif "mins" in planes:
            mins = _flat(planes["mins"], rows, order).reshape(blocks, -1)
    fields = Fields(
        codes=_flat(codes, rows, order).reshape(blocks, layout.block),
        d=d.reshape(blocks),
        m=_flat(planes["m"][..., None, :], rows, order).reshape(blocks) if "m" in planes else None,
        scales=scales,
        mins=mins,
    )
    return join(fields, layout)


def _tiled(field: np.ndarray, rows: int, width: int, cut: Cut) -> np.ndarray:
    """(t, b, width, lanes), or (b, t, width, lanes), of a field of all blocks."""
    matrix = field.reshape(rows, -1)
    matrix = np.pad(matrix, ((0, -rows % max(cut.lanes, ROW_TILE)), (0, 0)))
    tiles = matrix.reshape(-1, cut.lanes, matrix.shape[1] // width, width)
    return np.ascontiguousarray(tiles.transpose((0, 2, 3, 1) if cut.order == "rows" else (2, 0, 3, 1)))


def _flat(plane: np.ndarray, rows: int, order: Order) -> np.ndarray:
    """The field, row after row, of a plane (t, b, width, lanes) or (b, t, width, lanes)."""
    matrix = plane.transpose((0, 3, 1, 2) if order == "rows" else (1, 3, 0, 2))
    return np.ascontiguousarray(matrix.reshape(-1, plane.shape[order == "rows"] * plane.shape[2])[:rows])


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """(.., 32 bits / 8, l) bytes of codes (.., 32, l)."""
    count = 8 // bits
    parts = codes.reshape(*codes.shape[:-2], count, SUB_BLOCK // count, codes.shape[-1])
    packed = parts[..., 0, :, :]
    for number in range(1, count):
        packed = packed | (parts[..., number, :, :] << np.uint8(number * bits))
    return packed


def _unpack(plane: np.ndarray, bits: int) -> np.ndarray:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
    parts = (plane[..., None, :, :] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*plane.shape[:-2], SUB_BLOCK, plane.shape[-1])
