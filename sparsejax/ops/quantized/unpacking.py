"""From planes to codes and scales under jit; also inside the kernels."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.quantized.formats import SUB_BLOCK, BlockFormat
from sparsejax.ops.quantized.planes import Order

Planes = Mapping[str, Array]


def codes_of(planes: Planes, layout: BlockFormat) -> Array:
    """int32 (.., 32, l): the codes, 0 where the number is 0 or the minimum.

    Args:
      planes: "low" and, where the format has it, "high", with any leading axes.
      layout: the format.
    """
    if layout.bits == 8:
        return planes["low"].astype(jnp.int32)
    codes = unpacked(planes["low"], layout.low_bits)
    if "high" in planes:
        codes = codes | (unpacked(planes["high"], layout.bits - layout.low_bits) << layout.low_bits)
    return codes - layout.zero if layout.zero else codes


def unpacked(plane: Array, bits: int) -> Array:
    """int32 (.., 32, l) of bytes (.., 32 bits / 8, l) that hold codes of ``bits`` bits.

    Example:
      >>> unpacked(jnp.full((16, 1), 0x21, jnp.uint8), 4)[::16, 0]
      Array([1, 2], dtype=int32)
    """
    parts = plane.astype(jnp.int32)[..., None, :, :]
    shifts = jax.lax.broadcasted_iota(jnp.int32, (8 // bits, 1, 1), 0) * bits
    return ((parts >> shifts) & ((1 << bits) - 1)).reshape(*plane.shape[:-2], SUB_BLOCK, plane.shape[-1])


def scales_of(planes: Planes, layout: BlockFormat, order: Order = "rows") -> tuple[Array, Array | None]:
    """float32 (.., b, 32 / group, l) scales, and minima to be subtracted or None.

    Args:
      planes: "d" and what else the format has, of whole blocks.
      layout: the format.
      order: of the planes.
    """
    d = of_sub_blocks(planes["d"], layout, order)
    m = of_sub_blocks(planes["m"], layout, order) if "m" in planes else None
    return applied_scales(d, m, planes, layout)


def of_sub_blocks(plane: Array, layout: BlockFormat, order: Order) -> Array:
    """A plane "d" or "m" with one row for each sub-block instead of each block."""
    return jnp.repeat(plane, layout.block // SUB_BLOCK, axis=plane.ndim - (2 if order == "rows" else 3))


def applied_scales(
    d: Array, m: Array | None, planes: Planes, layout: BlockFormat
) -> tuple[Array, Array | None]:
    """As `scales_of`, from ``d`` and ``m`` (.., l) of each sub-block."""
    scale = d.astype(jnp.float32)[..., None, :]
    low = None if m is None else m.astype(jnp.float32)[..., None, :]
    if "scales" not in planes:
        return scale, None if low is None else -low
    factors = planes["scales"].astype(jnp.int32)
    if layout.bits == 2 and low is not None:
        return scale * (factors & 15).astype(jnp.float32), low * ((factors >> 4) & 15).astype(jnp.float32)
    if low is not None:
        low = low * planes["mins"].astype(jnp.float32)
    return scale * factors.astype(jnp.float32), low


def values_of(planes: Planes, layout: BlockFormat, order: Order = "rows") -> Array:
    """float32 (.., 32, l): the numbers, in the planes' order.

    Args:
      planes: of whole blocks.
      layout: the format.
      order: of the planes.
    """
    return scaled(codes_of(planes, layout), *scales_of(planes, layout, order))


def scaled(codes: Array, scale: Array, low: Array | None) -> Array:
    """Codes (.., 32, l) times their scales (.., g, l), less their minima."""
    of_scale = codes.shape[-2] // scale.shape[-2]
    groups = codes.astype(jnp.float32).reshape(*scale.shape[:-1], of_scale, codes.shape[-1])
    values = groups * scale[..., None, :]
    if low is not None:
        values = values - low[..., None, :]
    return values.reshape(codes.shape)


def as_matrix(values: Array, rows: int, order: Order = "rows") -> Array:
    """(rows, c) of numbers (t, b, 32, l) or (b, t, 32, l).

    Args:
      values: from `values_of`.
      rows: without those that complete the last tile.
      order: of the planes.
    """
    t, b = values.shape[:2] if order == "rows" else values.shape[1::-1]
    matrix = values.transpose((0, 3, 1, 2) if order == "rows" else (1, 3, 0, 2))
    return matrix.reshape(t * values.shape[-1], b * SUB_BLOCK)[:rows]
