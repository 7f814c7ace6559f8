"""Products with quantised tiles as a Mosaic kernel for TPUs: the chosen tiles are prefetched."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.ops import backends
from sparsejax.ops.quantized.formats import SUB_BLOCK
from sparsejax.ops.quantized.kernel import Plan, chunk_values

MOST_TOKENS = 256  # of one step
LEAST_TOKENS = 8  # rows of a register


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
    tokens = min(MOST_TOKENS, max(LEAST_TOKENS, pl.next_power_of_2(count)))
    step = plan.chunk * SUB_BLOCK
    x = jnp.pad(x.astype(jnp.float32), ((0, -count % tokens), (0, 0)))
    parts = x.reshape(x.shape[0], -1, step).transpose(1, 0, 2)
    steps = parts.shape[0]
    first = jnp.arange(steps, dtype=jnp.int32) * plan.chunk if blocks is None else blocks
    ready = {name: _with_rows(name, plane) for name, plane in planes.items()}
    of_tile = pl.BlockSpec((None, tokens, width), lambda i, n, j, tiles, first: (i, n, 0))
    out: Array = pl.pallas_call(
        partial(_kernel, plan, tuple(ready)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(tiles.shape[0], x.shape[0] // tokens, steps),
            in_specs=[
                pl.BlockSpec((None, tokens, step), lambda i, n, j, tiles, first: (j, n, 0)),
                *(_spec(plan, name, plane) for name, plane in ready.items()),
            ],
            out_specs=of_tile,
        ),
        out_shape=jax.ShapeDtypeStruct((tiles.shape[0], x.shape[0], width), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=backends.interpret(),
        name="quantized_product",
    )(tiles, first, parts, *ready.values())
    return out.transpose(1, 0, 2).reshape(x.shape[0], -1)[:count]


def _with_rows(name: str, plane: Array) -> Array:
    """The plane with four axes, of a type that the vector units have."""
    if name in ("d", "m"):
        return plane.astype(jnp.float32)[..., None, :]
    return jax.lax.bitcast_convert_type(plane, jnp.int8)


def _spec(plan: Plan, name: str, plane: Array) -> pl.BlockSpec:
    shared = plan.sub_blocks if name in ("d", "m") else 1
    size = max(1, plan.chunk // shared)

    def place(i: Array, n: Array, j: Array, tiles: jax.Ref, first: jax.Ref) -> tuple[Any, ...]:
        del n
        block = jax.lax.div(first[j], shared * size)
        return (tiles[i], block, 0, 0) if plan.order == "rows" else (block, tiles[i], 0, 0)

    shape = (None, size) if plan.order == "rows" else (size, None)
    return pl.BlockSpec((*shape, *plane.shape[-2:]), place)


def _kernel(
    plan: Plan, names: tuple[str, ...], tiles: jax.Ref, first: jax.Ref, x: jax.Ref, *refs: jax.Ref
) -> None:
    del tiles, first
    *planes, out = refs
    parts = {
        name: ref[..., 0, :] if name in ("d", "m") else ref[...]
        for name, ref in zip(names, planes, strict=True)
    }
    product = jnp.dot(
        x[...],
        chunk_values(plan, parts),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        out[...] = jnp.zeros_like(out)

    out[...] += product
