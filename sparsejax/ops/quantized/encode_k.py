"""Scales of Q4_K and Q6_K blocks, searched for the least squared error.

A block holds groups with a small integer scale each, multiples of one float16. The search goes through some
scales of each group, fits scale and minimum to the codes of each by least squares, keeps the best, rounds
them to integers, and then tries their neighbours with the codes that suit those.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from sparsejax.ops.quantized.blocks import Fields

_STRETCHES = np.linspace(-1.2, 0.8, 9, dtype=np.float32)
"""Steps by which the extremes of a group lie beyond the extreme codes: cutting a little off the largest
number often makes all others better."""

_NEAR = (-1, 0, 1)


def q4_k_fields(blocks: np.ndarray) -> Fields:
    """Codes 0 to 15, with a scale and a minimum for each 32 elements.

    Args:
      blocks: float32 (n, 256).

    Source: the idea of ggml's make_qkx2_quants: a search over scales with least squares, without its weights.
    """
    groups = blocks.reshape(-1, 8, 32)
    scale, low = _affine_fit(groups.reshape(-1, 32), 15)
    scale, low = scale.reshape(-1, 8), low.reshape(-1, 8)
    d, scales = _as_multiples(scale, 63)
    m, mins = _as_multiples(-low, 63)
    wide_d, wide_m = d.astype(np.float32)[:, None], m.astype(np.float32)[:, None]
    tries = (
        (_clip(scales + more, 0, 63), _clip(mins + lower, 0, 63)) for more, lower in product(_NEAR, _NEAR)
    )
    best = _Best(groups.shape[:2], parts=2)
    for scales, mins in tries:
        size, start = (wide_d * scales)[..., None], (wide_m * mins)[..., None]
        codes = _codes(groups + start, size, 0, 15)
        best.offer(_squares(codes * size - start - groups), codes, (scales, mins))
    scales, mins = (part.astype(np.uint8) for part in best.parts)
    return Fields(best.codes.astype(np.uint8).reshape(len(blocks), -1), d, m, scales, mins)


def q6_k_fields(blocks: np.ndarray) -> Fields:
    """Codes 0 to 63, 32 of which mean 0 and less, with a scale for each 16 elements.

    Args:
      blocks: float32 (n, 256).

    Source: the idea of ggml's make_qx_quants, as `q4_k_fields`.
    """
    groups = blocks.reshape(-1, 16, 16)
    scale = _symmetric_fit(groups.reshape(-1, 16), 32).reshape(-1, 16)
    largest = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)
    d = (largest[:, 0] / np.float32(-128)).astype(np.float16)
    wide = d.astype(np.float32)[:, None]
    rounded = np.rint(scale * finite_inverse(wide))
    best = _Best(groups.shape[:2], parts=1)
    for more in _NEAR:
        scales = _clip(rounded + more, -128, 127)
        size = (wide * scales)[..., None]
        codes = _codes(groups, size, -32, 31)
        best.offer(_squares(codes * size - groups), codes, (scales,))
    codes = (best.codes + 32).astype(np.uint8).reshape(len(blocks), -1)
    return Fields(codes, d, scales=best.parts[0].astype(np.int8))


class _Best:
    """The codes and integers with the least error of each group so far."""

    def __init__(self, groups: tuple[int, ...], *, parts: int) -> None:
        self.error = np.full(groups, np.inf, np.float32)
        self.codes = np.zeros(0, np.float32)
        self.parts = [np.zeros(groups, np.float32) for _ in range(parts)]

    def offer(self, error: np.ndarray, codes: np.ndarray, parts: Iterable[np.ndarray]) -> None:
        better = error < self.error
        if not self.codes.size:
            self.codes = codes
        else:
            np.copyto(self.codes, codes, where=better[..., None])
        for kept, part in zip(self.parts, parts, strict=True):
            np.copyto(kept, part, where=better)
        np.copyto(self.error, error, where=better)


def _affine_fit(x: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and minimum, not above 0, of each row: ``scale * code + low`` is near ``x``."""
    count = np.float32(x.shape[1])
    low = np.minimum(x.min(axis=1), 0)
    step = (x.max(axis=1) - low) / np.float32(most)
    sum_x = x.sum(axis=1)
    best = np.full(len(x), np.inf, np.float32)
    scale, start = step.copy(), low.copy()
    for stretch in _STRETCHES:
        inverse = finite_inverse(step) * np.float32((most + stretch) / most)
        codes = _clip(np.rint((x - low[:, None]) * inverse[:, None]), 0, most)
        sum_c, sum_cc, sum_cx = codes.sum(axis=1), _squares(codes), _dots(codes, x)
        determinant = count * sum_cc - sum_c * sum_c
        slope = (count * sum_cx - sum_c * sum_x) * finite_inverse(determinant)
        offset = (sum_x - slope * sum_c) / count
        flat = offset > 0
        slope = np.where(flat, sum_cx * finite_inverse(sum_cc), slope)
        offset = np.where(flat, np.float32(0), offset)
        error = _squares(codes * slope[:, None] + offset[:, None] - x)
        better = (error < best) & (slope >= 0)
        for kept, part in ((best, error), (scale, slope), (start, offset)):
            np.copyto(kept, part, where=better)
    return scale, start


def _symmetric_fit(x: np.ndarray, most: int) -> np.ndarray:
    """Scale, of either sign, of each row: ``scale * code`` is near ``x`` with codes -most to most - 1."""
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]
    best = np.full(len(x), -1, np.float32)
    scale = np.zeros(len(x), np.float32)
    for stretch in _STRETCHES:
        inverse = finite_inverse(largest) * -(most + stretch)
        codes = _clip(np.rint(x * inverse[:, None]), -most, most - 1)
        sum_cx, sum_cc = _dots(codes, x), _squares(codes)
        explained = sum_cx * sum_cx * finite_inverse(sum_cc)
        better = explained > best
        np.copyto(best, explained, where=better)
        np.copyto(scale, sum_cx * finite_inverse(sum_cc), where=better)
    return scale


def finite_inverse(d: np.ndarray) -> np.ndarray:
    """1 / d; 0 where d is 0 or too small to have an inverse, whose float16 scale is 0 in any case.

    Args:
      d: float32 of any shape.

    Example:
      >>> finite_inverse(np.array([4.0, 0.0], np.float32)).tolist()
      [0.25, 0.0]
    """
    with np.errstate(divide="ignore", over="ignore"):
        turned = np.float32(1) / d
    return np.where(np.isfinite(turned), turned, np.float32(0))


def _as_multiples(sizes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A float16 for each row, and the integers 0 to ``most`` whose multiples of it are near ``sizes``."""
    unit = (sizes.max(axis=1) / np.float32(most)).astype(np.float16)
    return unit, _clip(np.rint(sizes * finite_inverse(unit.astype(np.float32)[:, None])), 0, most)


def _codes(x: np.ndarray, size: np.ndarray, least: int, most: int) -> np.ndarray:
    return _clip(np.rint(x * finite_inverse(size)), least, most)


def _clip(x: np.ndarray, least: int, most: int) -> np.ndarray:
    clipped: np.ndarray = np.clip(x, np.float32(least), np.float32(most))
    return clipped


def _squares(x: np.ndarray) -> np.ndarray:
    return _dots(x, x)


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sums: np.ndarray = np.einsum("...i,...i->...", x, y)
    return sums
