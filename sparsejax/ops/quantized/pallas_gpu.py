"""Products with quantised tiles as a Triton kernel for GPUs: one program per tile of rows.

Codes and scales are read once, become numbers in registers, and are multiplied there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from sparsejax.ops import backends
from sparsejax.ops.quantized.formats import SUB_BLOCK
from sparsejax.ops.quantized.kernel import Plan, chunk_values

MOST_TOKENS = 64  # of one program
LEAST_TOKENS = 16  # of the smallest product that the tensor cores take


def product(plan: Plan, x: Array, planes: dict[str, Array], tiles: Array, blocks: Array | None) -> Array:
    """Products of tokens with chosen tiles of rows, along all columns or chosen sub-blocks of them.

    Args:
      plan: format, order and sub-blocks of a step.
      x: (n, columns), those of ``blocks`` where there are such.
      planes: of the weights.
      tiles: int32 (k,).
      blocks: int32 (j,), or None for all.

    Returns:
      float32 (n, k lanes).
    """
    count, width = x.shape[0], planes["low"].shape[-1]
    tokens = 1 if count == 1 else min(MOST_TOKENS, max(LEAST_TOKENS, pl.next_power_of_2(count)))
    x = jnp.pad(x.astype(jnp.float32), ((0, -count % tokens), (0, 0)))
    chosen = jnp.zeros(1, jnp.int32) if blocks is None else blocks
    out: Array = pl.pallas_call(
        partial(_kernel, plan, tuple(planes), blocks is not None, tokens),
        grid=(tiles.shape[0], x.shape[0] // tokens),
        out_shape=jax.ShapeDtypeStruct((tiles.shape[0], x.shape[0], width), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=backends.interpret(),
        name="quantized_product",
    )(tiles, chosen, x, *planes.values())
    return out.transpose(1, 0, 2).reshape(x.shape[0], -1)[:count]


def _kernel(plan: Plan, names: tuple[str, ...], choose: bool, tokens: int, *refs: jax.Ref) -> None:
    tiles, blocks, x, *planes, out = refs
    tile, rows = tiles[pl.program_id(0)], pl.ds(pl.program_id(1) * tokens, tokens)
    step = plan.chunk * SUB_BLOCK

    def add(number: Array, total: Array) -> Array:
        first = blocks[number] if choose else number * plan.chunk
        parts = {name: _load(plan, name, ref, tile, first) for name, ref in zip(names, planes, strict=True)}
        values = chunk_values(plan, parts)
        columns = pl.ds(number * step, step)
        if tokens == 1:
            row: Array = x[0, columns]
            return total + (values * row[:, None]).sum(axis=0)[None]
        exact = jax.lax.Precision.HIGHEST
        return total + jnp.dot(x[rows, columns], values, precision=exact)

    start = jnp.zeros((tokens, out.shape[-1]), jnp.float32)
    out[pl.program_id(0), rows, :] = jax.lax.fori_loop(0, x.shape[1] // step, add, start)


def _load(plan: Plan, name: str, ref: jax.Ref, tile: Array, first: Array) -> Array:
    """The plane's part of ``chunk`` sub-blocks from ``first`` on."""
    place: Any = pl.ds(first, plan.chunk)
    if name in ("d", "m"):
        place = pl.ds(jax.lax.div(first, plan.sub_blocks), max(1, plan.chunk // plan.sub_blocks))
    part: Array = ref[tile, place] if plan.order == "rows" else ref[place, tile]
    return part
