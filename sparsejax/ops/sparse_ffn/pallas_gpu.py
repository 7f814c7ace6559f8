"""Blocks of neurons as a Triton kernel for GPUs: one program per tile, its hidden values in registers."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.tree_util import PyTreeDef

from sparsejax.ops import backends
from sparsejax.ops.sparse_ffn import kernel
from sparsejax.ops.sparse_ffn.block import Plan
from sparsejax.ops.sparse_ffn.tiles import Tiles
from sparsejax.ops.sparse_ffn.weights import FFNWeights, map_neurons

COLUMNS = 64  # of a row that one product takes
LEAST = 16  # rows and columns of the smallest product


def _launch(plan: Plan, rows: Array, weights: FFNWeights, tiles: Tiles) -> Array:
    weights = map_neurons(_padded, weights)
    rows = _padded(rows)
    outputs: Array = pl.pallas_call(
        partial(_kernel, plan, jax.tree.structure(weights)),
        grid=(rows.shape[0],),
        out_shape=jax.ShapeDtypeStruct(rows.shape, jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=backends.interpret(),
        name="sparse_ffn",
    )(tiles.blocks, tiles.used[None], rows, *(part for part in weights if part is not None))
    return outputs


def _padded(part: Array) -> Array:
    """Zeros where a power of two of rows, or a multiple of the columns of one product, is not full."""
    _, height, width = part.shape
    full = 1 if height == 1 else max(LEAST, pl.next_power_of_2(height))
    if height == 1:
        wide = max(LEAST, pl.next_power_of_2(width))
    else:
        wide = pl.cdiv(width, COLUMNS) * COLUMNS
    return jnp.pad(part, ((0, 0), (0, full - height), (0, wide - width)))


def _kernel(
    plan: Plan, structure: PyTreeDef, blocks: jax.Ref, used: jax.Ref, rows: jax.Ref, *refs: jax.Ref
) -> None:
    *parts, outputs = refs
    weights = FFNWeights(*jax.tree.unflatten(structure, parts))
    tile = pl.program_id(0)

    @pl.when(tile < used[0])
    def _() -> None:
        block = blocks[tile]
        sums = _along_rows(rows, tile, block, weights.w_in, weights.b_in)
        gate = None
        if weights.w_gate is not None:
            gate = _along_rows(rows, tile, block, weights.w_gate, weights.b_gate)
        hidden = kernel.activated(plan, sums, gate).astype(weights.w_out.dtype)

        def write(number: Array, carry: None) -> None:
            chunk = _dot(hidden, weights.w_out[block, :, _columns(number)])
            outputs[tile, :, _columns(number)] = chunk
            return carry

        jax.lax.fori_loop(0, rows.shape[-1] // COLUMNS, write, None)


def _along_rows(
    rows: jax.Ref, tile: Array, block: Array, matrix: jax.Ref | Array, bias: jax.Ref | Array | None
) -> Array:
    def add(number: Array, total: Array) -> Array:
        left, right = rows[tile, :, _columns(number)], matrix[block, :, _columns(number)]
        return total + _dot(left, right.T)

    start = jnp.zeros((rows.shape[1], matrix.shape[1]), jnp.float32)
    total: Array = jax.lax.fori_loop(0, rows.shape[-1] // COLUMNS, add, start)
    return total if bias is None else total + bias[block, 0, :].astype(jnp.float32)


def _columns(number: Array) -> Any:
    return pl.ds(number * COLUMNS, COLUMNS)


def _dot(left: Array, right: Array) -> Array:
    exact = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return jnp.dot(left, right, precision=exact, preferred_element_type=jnp.float32)


block_ffn = kernel.with_kernel(_launch)
"""Cost: the selected products; each tile reads its rows and its block's weights once."""
