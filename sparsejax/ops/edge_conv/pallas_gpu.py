"""The op over pairs as a Triton kernel for GPUs: one program per node, its sums in registers.

A program takes several slots at once, so that the rows of all of them are on their way together.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.edge_conv import kernel
from sparsejax.ops.edge_conv.filters import Parts, TableFilter
from sparsejax.ops.edge_conv.kernel import Slots, Sums, Weights

TILE = 512  # slots times channels that a program takes at once
THREADS = 128
LEAST = 16  # channels


class _Plan(NamedTuple):
    """What a program does, all known while tracing."""

    structure: Any
    slots: int
    tile: int
    channels: int
    dtype: Any


def _launch(scalars: Array, vectors: Array | None, weights: Weights, slots: Slots) -> Sums:
    nodes, channels = scalars.shape
    wide = max(LEAST, pl.next_power_of_2(channels))
    tile = max(1, min(TILE // wide, pl.next_power_of_2(slots.place.shape[1])))
    padded = partial(_padded, wide)
    more = -slots.place.shape[1] % tile
    inputs = (
        *jax.tree.map(padded, (scalars, vectors, weights)),
        slots.padded(0, more),
    )
    leaves, structure = jax.tree.flatten(inputs)
    plan = _Plan(structure, slots.place.shape[1] + more, tile, wide, accumulator(scalars.dtype))
    shapes: list[tuple[int, ...]] = [(nodes, wide)]
    if vectors is not None or slots.toward is not None:
        shapes.append((nodes, 3, wide))
    of_scalars, *of_vectors = pl.pallas_call(
        partial(_kernel, plan),
        grid=(nodes,),
        out_shape=[jax.ShapeDtypeStruct(shape, scalars.dtype) for shape in shapes],
        compiler_params=plgpu.CompilerParams(num_warps=max(1, min(THREADS, tile * wide) // 32), num_stages=1),
        interpret=backends.interpret(),
        name="edge_conv",
    )(*leaves)
    return of_scalars[:, :channels], of_vectors[0][..., :channels] if of_vectors else None


def _padded(wide: int, array: Array) -> Array:
    more = wide - array.shape[-1]
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, more)]) if more else array


def _kernel(plan: _Plan, *refs: jax.Ref) -> None:
    count = plan.structure.num_leaves
    scalars, vectors, weights, slots = jax.tree.unflatten(plan.structure, refs[:count])
    outputs = refs[count:]
    node = pl.program_id(0)
    columns = jnp.arange(plan.channels, dtype=jnp.int32)

    def add(number: Array, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        at = node, pl.ds(number * plan.tile, plan.tile)
        place, neighbours = plgpu.load(slots.place.at[at]), plgpu.load(slots.neighbours.at[at])
        live = ~(place < 0)  # true of a distance that is not a number, too
        parts = _parts(plan, weights, place, live)
        messages = [_rows(plan, scalars, live, neighbours) * parts[0]]
        for axis in range(len(totals) - 1):
            message = jnp.zeros_like(totals[0])
            if vectors is not None:
                message = _rows(plan, vectors, live, neighbours, axis) * parts[1]
            if slots.toward is not None:
                along = plgpu.load(slots.toward[axis].at[at])
                message = message + along.astype(plan.dtype)[:, None] * parts[-1]
            messages.append(message)
        return tuple(total + message for total, message in zip(totals, messages, strict=True))

    zeros = jnp.zeros((plan.tile, plan.channels), plan.dtype)
    start = (zeros,) * (1 if len(outputs) == 1 else 4)
    tiles = jnp.int32(plan.slots // plan.tile)
    totals = [total.sum(0) for total in jax.lax.fori_loop(jnp.int32(0), tiles, add, start)]
    plgpu.store(outputs[0].at[node, columns], totals[0].astype(outputs[0].dtype))
    for axis, total in enumerate(totals[1:]):
        plgpu.store(outputs[1].at[node, axis, columns], total.astype(outputs[1].dtype))


def _parts(plan: _Plan, weights: Any, place: Array, live: Array) -> Parts:
    """Weights (tile, c) of the slots, 0 where nothing is, from references to `Weights`."""
    if not isinstance(weights, TableFilter):
        return tuple(_rows(plan, part, live, place) for part in weights)
    intervals = weights.coefficients[0][0].shape[0]
    number, rest = kernel.in_table(place, intervals, weights.cutoff)
    rest = rest.astype(plan.dtype)[:, None]
    found = ([_rows(plan, power, live, number) for power in powers] for powers in weights.coefficients)
    return tuple(kernel.cubic(powers, rest) for powers in found)


def _rows(plan: _Plan, ref: Any, live: Array, rows: Array, *axis: int) -> Array:
    """Rows (tile, c) of an array in memory, which is not asked for those that are not live."""
    columns = jnp.arange(plan.channels, dtype=jnp.int32)[None]
    at = ref.at[(rows[:, None], *axis, columns)]
    return plgpu.load(at, mask=live[:, None], other=0).astype(plan.dtype)


edge_conv = kernel.with_kernel(_launch)
"""Cost: 2 flops per channel, feature and slot that is filled, and 18 for a table; each slot reads 4 rows of
features and 3 of weights, or 12 of a table, which the cache holds. No filter is written to memory."""
