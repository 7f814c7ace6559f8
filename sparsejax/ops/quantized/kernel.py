"""What the kernels of all targets share: the plan of a product, and the numbers of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jax import Array

from sparsejax.ops.quantized.formats import SUB_BLOCK, SUPER_BLOCK, format_named
from sparsejax.ops.quantized.planes import Order
from sparsejax.ops.quantized.unpacking import applied_scales, codes_of, scaled

MOST_SUB_BLOCKS = SUPER_BLOCK // SUB_BLOCK
"""Of a step: no more than share a scale of K formats."""


class Plan(NamedTuple):
    """What is static: the format, what lies together in the planes, and the sub-blocks of one step."""

    format: str
    order: Order
    chunk: int

    @property
    def sub_blocks(self) -> int:
        """Sub-blocks of a block."""
        return format_named(self.format).block // SUB_BLOCK


def plan_of(format: str, order: Order, sub_blocks: int, *, chosen: bool) -> Plan:  # noqa: A002
    """The plan of a product along so many sub-blocks of columns.

    Args:
      format: of the weights.
      order: of the planes.
      sub_blocks: of a row.
      chosen: whether they are chosen one by one.

    Example:
      >>> plan_of("q8_0", "rows", 12, chosen=False).chunk, plan_of("q4_k", "columns", 16, chosen=True).chunk
      (4, 1)
    """
    chunk = 1
    while not chosen and chunk < MOST_SUB_BLOCKS and sub_blocks % (2 * chunk) == 0:
        chunk *= 2
    return Plan(format, order, chunk)


def chunk_values(plan: Plan, parts: Mapping[str, Array]) -> Array:
    """float32 (chunk 32, l): the numbers of one step.

    Args:
      plan: of the product.
      parts: of the planes, (chunk, .., l), and "d" and "m" with one row where a scale is shared.
    """
    layout = format_named(plan.format)
    codes = codes_of(parts, layout)
    scale, low = applied_scales(parts["d"], parts.get("m"), parts, layout)
    if scale.shape[0] != plan.chunk:
        raise ValueError(
            f"{plan.format} has a scale for each sub-block, not {scale.shape[0]} for {plan.chunk}"
        )
    return scaled(codes, scale, low).reshape(plan.chunk * SUB_BLOCK, codes.shape[-1])
