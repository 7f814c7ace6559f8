"""The bytes of blocks, taken apart into codes and scales and put together again without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sparsejax.ops.quantized.formats import BlockFormat


class Fields(NamedTuple):
    """The contents of n blocks.

    Attributes:
      codes: uint8 (n, block) in the order of the elements; int8 of q8_0.
      d: float16 (n,), the scale, or of K formats the scale of the scales.
      m: float16 (n,), the minimum, or of K formats the scale of the minima; None where there is none.
      scales: uint8 or int8 (n, block / group) of K formats.
      mins: uint8 (n, block / group) of K formats with minima.
    """

    codes: np.ndarray
    d: np.ndarray
    m: np.ndarray | None = None
    scales: np.ndarray | None = None
    mins: np.ndarray | None = None


class Scales(NamedTuple):
    """What `Fields` has beside the codes."""

    d: np.ndarray
    m: np.ndarray | None = None
    scales: np.ndarray | None = None
    mins: np.ndarray | None = None


class Packed(NamedTuple):
    """Codes of some bits in runs of bytes.

    A run of ``width`` bytes holds ``width`` elements in its lowest bits, as many in the next
    higher ones, and so on.

    Attributes:
      start: first byte of the runs in a block.
      runs: in a block.
      width: bytes of a run.
      bits: of a code.
    """

    start: int
    runs: int
    width: int
    bits: int


class _Layout(NamedTuple):
    """Where in a block the fields begin."""

    low: Packed
    d: int
    m: int | None = None
    high: Packed | None = None
    scales: int | None = None


_LAYOUTS: Mapping[str, _Layout] = {
    "q4_0": _Layout(Packed(2, 1, 16, 4), d=0),
    "q4_1": _Layout(Packed(4, 1, 16, 4), d=0, m=2),
    "q5_0": _Layout(Packed(6, 1, 16, 4), d=0, high=Packed(2, 4, 1, 1)),
    "q5_1": _Layout(Packed(8, 1, 16, 4), d=0, m=2, high=Packed(4, 4, 1, 1)),
    "q8_0": _Layout(Packed(2, 1, 32, 8), d=0),
    "q2_k": _Layout(Packed(16, 2, 32, 2), d=80, m=82, scales=0),
    "q3_k": _Layout(Packed(32, 2, 32, 2), d=108, high=Packed(0, 1, 32, 1), scales=96),
    "q4_k": _Layout(Packed(16, 4, 32, 4), d=0, m=2, scales=4),
    "q5_k": _Layout(Packed(48, 4, 32, 4), d=0, m=2, high=Packed(16, 1, 32, 1), scales=4),
    "q6_k": _Layout(Packed(0, 2, 64, 4), d=208, high=Packed(128, 2, 32, 2), scales=192),
}


def split(blocks: np.ndarray, layout: BlockFormat) -> Fields:
    """The fields of blocks.

    Args:
      blocks: uint8 (n, bytes).
      layout: a format of blocks.

    Example:
      >>> from sparsejax.ops.quantized.formats import FORMATS
      >>> split(np.zeros((2, 18), np.uint8), FORMATS["q4_0"]).codes.shape
      (2, 32)

    Source: ggml's block structures, specs/sparse_inference.md section 6.
    """
    where = _LAYOUTS[layout.name]
    codes = unpack(blocks, where.low)
    if where.high is not None:
        codes = codes | (unpack(blocks, where.high) << np.uint8(where.low.bits))
    elif layout.bits == 8:
        codes = codes.view(np.int8)
    return Fields(codes, *split_scales(blocks, layout))


def packed_codes(layout: BlockFormat) -> dict[str, Packed]:
    """Where in a block the codes are: their lowest bits, "low", and the others, "high".

    Args:
      layout: a format of blocks.

    Example:
      >>> from sparsejax.ops.quantized.formats import FORMATS
      >>> packed_codes(FORMATS["q4_k"])
      {'low': Packed(start=16, runs=4, width=32, bits=4)}
    """
    where = _LAYOUTS[layout.name]
    return {"low": where.low} if where.high is None else {"low": where.low, "high": where.high}


def split_scales(blocks: np.ndarray, layout: BlockFormat) -> Scales:
    """The fields of blocks that are no codes.

    Args:
      blocks: uint8 (n, bytes).
      layout: a format of blocks.
    """
    where = _LAYOUTS[layout.name]
    m = None if where.m is None else _half(blocks, where.m)
    scales = mins = None
    if where.scales is not None:
        scales, mins = _split_scales(blocks[:, where.scales :], layout)
    return Scales(_half(blocks, where.d), m, scales, mins)


def join(fields: Fields, layout: BlockFormat) -> np.ndarray:
    """The inverse of `split`: uint8 (n, bytes).

    Args:
      fields: of n blocks.
      layout: their format.

    Example:
      >>> from sparsejax.ops.quantized.formats import FORMATS
      >>> raw = np.arange(2 * 210, dtype=np.uint8).reshape(2, 210)
      >>> (join(split(raw, FORMATS["q6_k"]), FORMATS["q6_k"]) == raw).all()
      np.True_
    """
    where = _LAYOUTS[layout.name]
    blocks = np.zeros((len(fields.d), layout.bytes), np.uint8)
    codes = fields.codes.view(np.uint8)
    if where.high is None:
        _pack(blocks, where.low, codes)
    else:
        _pack(blocks, where.low, codes & np.uint8((1 << where.low.bits) - 1))
        _pack(blocks, where.high, codes >> np.uint8(where.low.bits))
    blocks[:, where.d : where.d + 2] = _as_bytes(fields.d)
    if where.m is not None and fields.m is not None:
        blocks[:, where.m : where.m + 2] = _as_bytes(fields.m)
    if where.scales is not None and fields.scales is not None:
        packed = _join_scales(fields.scales, fields.mins, layout)
        blocks[:, where.scales : where.scales + packed.shape[1]] = packed
    return blocks


def unpack(blocks: np.ndarray, where: Packed) -> np.ndarray:
    """Codes (n, block) of blocks (n, bytes).

    Args:
      blocks: uint8.
      where: the codes are.
    """
    size = where.runs * where.width
    runs = blocks[:, where.start : where.start + size].reshape(-1, where.runs, 1, where.width)
    if where.bits == 8:
        return np.ascontiguousarray(runs).reshape(-1, size)
    shifts = np.arange(0, 8, where.bits, dtype=np.uint8)[:, None]
    return ((runs >> shifts) & np.uint8((1 << where.bits) - 1)).reshape(len(blocks), -1)


def _pack(blocks: np.ndarray, where: Packed, codes: np.ndarray) -> None:
    parts = codes.reshape(len(blocks), where.runs, 8 // where.bits, where.width)
    packed = parts[:, :, 0]
    for number in range(1, 8 // where.bits):
        packed = packed | (parts[:, :, number] << np.uint8(number * where.bits))
    blocks[:, where.start : where.start + where.runs * where.width] = packed.reshape(len(blocks), -1)


def _half(blocks: np.ndarray, start: int) -> np.ndarray:
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2")[:, 0].astype(np.float16, copy=False)


def _as_bytes(halves: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(halves.astype("<f2", copy=False))[:, None].view(np.uint8)


def _split_scales(packed: np.ndarray, layout: BlockFormat) -> tuple[np.ndarray, np.ndarray | None]:
    if layout.name == "q6_k":
        return np.ascontiguousarray(packed[:, :16]).view(np.int8), None
    if layout.name == "q2_k":
        return packed[:, :16] & np.uint8(15), packed[:, :16] >> np.uint8(4)
    if layout.name == "q3_k":
        low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
        shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
        high = ((packed[:, None, 8:12] >> shifts) & 3).reshape(-1, 16)
        return (low | (high << 4)).astype(np.int8) - np.int8(32), None
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scales, mins


def _join_scales(scales: np.ndarray, mins: np.ndarray | None, layout: BlockFormat) -> np.ndarray:
    if layout.name == "q6_k":
        return scales.view(np.uint8)
    if layout.name == "q3_k":
        codes = (scales + np.int8(32)).view(np.uint8)
        low = (codes[:, :8] & 15) | ((codes[:, 8:] & 15) << 4)
        parts = (codes >> 4).reshape(-1, 4, 4)
        high = parts[:, 0] | (parts[:, 1] << 2) | (parts[:, 2] << 4) | (parts[:, 3] << 6)
        return np.concatenate([low, high], axis=1)
    if mins is None:
        raise ValueError(f"{layout.name} stores minima; give mins")
    if layout.name == "q2_k":
        joined: np.ndarray = scales | (mins << np.uint8(4))
        return joined
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = mins[:, :4] | ((mins[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((mins[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)
