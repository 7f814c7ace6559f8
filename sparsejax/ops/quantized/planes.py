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
from typing import Any, Literal, NamedTuple

import numpy as np

from sparsejax.ops.quantized.blocks import Fields, Packed, join, packed_codes, split_scales, unpack
from sparsejax.ops.quantized.formats import SUB_BLOCK, BlockFormat

Order = Literal["rows", "columns"]
"""What lies together: tiles of rows with all their columns, or sub-blocks of columns with all their rows."""

ROW_TILE = 32
"""Rows, or neurons, that are taken together; the lanes of a format are as many or half of them."""


_AT_ONCE = 1 << 21  # bytes: larger parts leave the cache, and for smaller ones threads wait for each other


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
    fields = split_scales(blocks, layout)
    planes = {name: _codes(blocks, where, rows, cut) for name, where in packed_codes(layout).items()}
    if layout.bits == 8:
        planes["low"] = planes["low"].view(np.int8)
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


def plane_shapes(
    layout: BlockFormat, rows: int, columns: int, cut: Cut
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and dtypes of what `to_planes` gives, known from those of a tile that is one block wide.

    Args:
      layout: a format of blocks.
      rows: of the matrix.
      columns: of the matrix, whole blocks.
      cut: how the planes are cut.

    Example:
      >>> from sparsejax.ops.quantized.formats import FORMATS
      >>> plane_shapes(FORMATS["q8_0"], 40, 96, Cut("rows", 16))["low"]
      ((4, 3, 32, 16), dtype('int8'))
    """
    tall = max(cut.lanes, ROW_TILE)
    one = to_planes(np.zeros((tall, layout.bytes), np.uint8), layout, tall, cut)
    times = (-(-rows // tall), columns // layout.block)
    times = times if cut.order == "rows" else times[::-1]
    return {
        name: ((plane.shape[0] * times[0], plane.shape[1] * times[1], *plane.shape[2:]), plane.dtype)
        for name, plane in one.items()
    }


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


def _codes(blocks: np.ndarray, where: Packed, rows: int, cut: Cut) -> np.ndarray:
    """The plane of codes, of which the bytes of a run are put together anew without taking them apart."""
    count, bits = 8 // where.bits, where.bits
    if where.width % (SUB_BLOCK // 2):
        return _pack(_tiled(unpack(blocks, where), rows, SUB_BLOCK, cut), bits)
    runs = _tiled(blocks[:, where.start : where.start + where.runs * where.width], rows, where.width, cut)
    if where.width * count == SUB_BLOCK:
        return runs
    groups, size = where.width // SUB_BLOCK, SUB_BLOCK // count
    by_rows = cut.order == "rows"
    runs = runs if by_rows else runs.swapaxes(0, 1)
    (tiles, many), inner = runs.shape[:2], (count, groups)
    shape = (tiles, many, *inner) if by_rows else (many, *inner, tiles)
    found = np.zeros((*shape, size, cut.lanes), np.uint8)
    # Bits of eight bytes at once: none leaves its byte, since they are masked between the shifts.
    word: Any = np.uint64 if cut.lanes % 8 == 0 else np.uint8
    read: Any = runs.view(word)
    written: Any = found.view(word)
    written = written if by_rows else written.transpose(3, 0, 1, 2, 4, 5)
    mask = np.frombuffer(bytes([(1 << bits) - 1] * np.dtype(word).itemsize), word)[0]
    step = max(1, _AT_ONCE * tiles // max(1, runs.nbytes))
    for tile, number, group, piece in np.ndindex(-(-tiles // step), count, groups, count):
        some, start = slice(tile * step, (tile + 1) * step), group * SUB_BLOCK + piece * size
        part = read[some, :, start : start + size] >> word(number * bits)
        part &= mask
        part <<= word(piece * bits)
        written[some, :, number, group] |= part
    axes = (tiles, -1) if by_rows else (-1, tiles)
    return found.reshape(*axes, size, cut.lanes)


def _tiled(field: np.ndarray, rows: int, width: int, cut: Cut) -> np.ndarray:
    """(t, b, width, lanes), or (b, t, width, lanes), of a field of all blocks."""
    matrix = field.reshape(rows, -1)
    if missing := -rows % max(cut.lanes, ROW_TILE):
        matrix = np.pad(matrix, ((0, missing), (0, 0)))
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
