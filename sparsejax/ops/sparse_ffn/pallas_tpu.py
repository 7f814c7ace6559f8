"""Blocks of neurons as a Mosaic kernel for TPUs: the block of each tile is prefetched, then its weights.

Neighbouring tiles of one block find its weights still in VMEM.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.tree_util import PyTreeDef

from sparsejax.ops import backends
from sparsejax.ops.sparse_ffn import kernel
from sparsejax.ops.sparse_ffn.block import Plan
from sparsejax.ops.sparse_ffn.tiles import Tiles
from sparsejax.ops.sparse_ffn.weights import FFNWeights


def _launch(plan: Plan, rows: Array, weights: FFNWeights, tiles: Tiles) -> Array:
    present = [part for part in weights if part is not None]
    of_tile = pl.BlockSpec((None, *rows.shape[1:]), _tile_index)
    outputs: Array = pl.pallas_call(
        partial(_kernel, plan, jax.tree.structure(weights)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows.shape[0],),
            in_specs=[of_tile, *(pl.BlockSpec((None, *part.shape[1:]), _block_index) for part in present)],
            out_specs=of_tile,
        ),
        out_shape=jax.ShapeDtypeStruct(rows.shape, jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=backends.interpret(),
        name="sparse_ffn",
    )(tiles.blocks, tiles.used[None], rows, *present)
    return outputs


def _tile_index(tile: Array, blocks: jax.Ref, used: jax.Ref) -> tuple[Array, int, int]:
    del blocks, used
    return tile, 0, 0


def _block_index(tile: Array, blocks: jax.Ref, used: jax.Ref) -> tuple[Array, int, int]:
    del used
    return blocks[tile], 0, 0


def _kernel(
    plan: Plan, structure: PyTreeDef, blocks: jax.Ref, used: jax.Ref, rows: jax.Ref, *refs: jax.Ref
) -> None:
    del blocks
    *parts, outputs = refs
    weights = FFNWeights(*jax.tree.unflatten(structure, parts))

    @pl.when(pl.program_id(0) < used[0])
    def _() -> None:
        sums = _along_rows(rows[...], weights.w_in, weights.b_in)
        gate = None if weights.w_gate is None else _along_rows(rows[...], weights.w_gate, weights.b_gate)
        hidden = kernel.activated(plan, sums, gate).astype(weights.w_out.dtype)
        outputs[...] = _dot(hidden, weights.w_out[...], contracted=0)


def _along_rows(rows: Array, matrix: jax.Ref | Array, bias: jax.Ref | Array | None) -> Array:
    product = _dot(rows, matrix[...], contracted=1)
    return product if bias is None else product + bias[...].astype(product.dtype)


def _dot(left: Array, right: Array, *, contracted: int) -> Array:
    exact = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    dimensions = (((1,), (contracted,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, precision=exact, preferred_element_type=jnp.float32)


block_ffn = kernel.with_kernel(_launch)
"""Cost: the selected products; each tile reads its rows, each run of tiles of one block its weights once."""
