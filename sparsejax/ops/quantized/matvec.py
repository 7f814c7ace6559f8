"""Few tokens times quantised tiles, in the form that XLA makes fast loops of on CPU.

What was found by reading the machine code: a sum along an axis is fast when that axis is not the last, when
it is short enough to be unrolled, and when one plane and one vector are multiplied in it. Codes that share a
byte are therefore summed apart, each over its 4 to 32 places of a sub-block; those sums are added, scaled
and, some sub-blocks together, written; and a second sum goes along the sub-blocks. Written as one sum over
all columns, or with two products in a sum, the same takes 10 to 30 times as long.
"""

from __future__ import annotations

import operator
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.quantized.formats import SUB_BLOCK, BlockFormat
from sparsejax.ops.quantized.kept import kept
from sparsejax.ops.quantized.planes import Order
from sparsejax.ops.quantized.unpacking import Planes, applied_scales

TOGETHER = {8: 2, 4: 2}
"""Sub-blocks whose sums are added before they are written, by the bits of a code: 4096 x 11008 on 2 cores,
least of 25 in ms, with 1 / 2 / 4: Q8_0 4.5 / 3.2 / 3.7, Q4_0 2.9 / 2.8 / 3.9; the float32 product 7.5."""


def matvec(x: Array, planes: Planes, layout: BlockFormat, order: Order, *, own: bool = False) -> Array:
    """float32 (n, t, l): the products of tokens with tiles of rows, each token's for themselves.

    Args:
      x: float32 (n, columns).
      planes: of whole blocks, in any order and number.
      layout: the format.
      order: of the planes.
      own: the planes have a first axis (n,): each token's are other ones.
    """
    of_b = 1 if order == "rows" else 0
    sums_of = jax.vmap(partial(_sums, layout=layout, of_b=of_b), in_axes=(0, 0 if own else None))
    sums = sums_of(kept(x), planes)
    return jnp.sum(kept(sums), axis=1 + of_b)


def _sums(x: Array, planes: Planes, layout: BlockFormat, of_b: int) -> Array:
    """(t, b, l) or (b, t, l): the products of a token with some sub-blocks together."""
    blocks = layout.block // SUB_BLOCK
    x = x.reshape(-1, SUB_BLOCK)
    sums = x.reshape(len(x), -1, layout.group).sum(axis=2)
    together = _divisor(len(x), TOGETHER.get(layout.bits, 1))

    def every(part: Array, number: int, axis: int = of_b) -> Array:
        """Every so many sub-blocks, beginning with ``number``."""
        shape = part.shape[:axis] + (-1, together) + part.shape[axis + 1 :]
        return jax.lax.index_in_dim(part.reshape(shape), number, axis + 1, keepdims=False)

    def of_sub_blocks(part: Array, number: int) -> Array:
        """Likewise of a plane with one row for each block."""
        return every(part, number) if blocks == 1 else jnp.repeat(part, blocks // together, axis=of_b)

    terms = []
    for number in range(together):
        mine = {name: every(plane, number) for name, plane in planes.items() if name not in ("d", "m")}
        here, mean = every(x, number, 0), every(sums, number, 0)
        d = of_sub_blocks(planes["d"], number)
        m = of_sub_blocks(planes["m"], number) if "m" in planes else None
        scale, low = applied_scales(d, m, mine, layout)
        for group in range(SUB_BLOCK // layout.group):
            product = _group_product(mine, layout, here, group, of_b)
            if layout.zero:
                product = product - layout.zero * _spread(mean[:, group], of_b)
            product = product * scale[..., group, :]
            if low is not None:
                product = product - _spread(mean[:, group], of_b) * low[..., group, :]
            terms.append(product)
    return _added(terms)


def _group_product(planes: Planes, layout: BlockFormat, x: Array, group: int, of_b: int) -> Array:
    """(t, b, l) or (b, t, l): the sums of codes times ``x`` over the elements that share a scale."""
    bits = {"low": layout.low_bits, "high": layout.bits - layout.low_bits}
    size = min(layout.group, *(SUB_BLOCK * bits[name] // 8 for name in bits if name in planes))
    parts = []
    for start in range(group * layout.group, (group + 1) * layout.group, size):
        codes = _codes(planes["low"], bits["low"], start, size)
        if "high" in planes:
            codes = codes | (_codes(planes["high"], bits["high"], start, size) << bits["low"])
        part = jnp.expand_dims(x[:, start : start + size], (1 - of_b, 3))
        parts.append((codes.astype(jnp.float32) * part).sum(axis=2))
    return _added(parts)


def _codes(plane: Array, bits: int, start: int, size: int) -> Array:
    """Integers (.., size, l): the codes of elements ``start`` on."""
    width = SUB_BLOCK * bits // 8
    part = jax.lax.slice_in_dim(plane, start % width, start % width + size, axis=-2)
    if bits == 8:
        return part
    shifted = part.astype(jnp.int32) >> (bits * (start // width))
    return shifted & ((1 << bits) - 1)


def _spread(of_blocks: Array, of_b: int) -> Array:
    return jnp.expand_dims(of_blocks, (1 - of_b, 2))


def _added(terms: list[Array]) -> Array:
    return reduce(operator.add, terms)


def _divisor(count: int, most: int) -> int:
    return next(size for size in range(most, 0, -1) if count % size == 0)
