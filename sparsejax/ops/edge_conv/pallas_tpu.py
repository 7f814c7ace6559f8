"""The op over pairs as a Mosaic kernel for TPUs: rows are copied from HBM while the node before is summed.

Which rows is in scalar memory. A table is looked up by copying the coefficients of one interval per slot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.edge_conv import kernel
from sparsejax.ops.edge_conv.filters import TableFilter
from sparsejax.ops.edge_conv.kernel import Slots, Sums, Weights
from sparsejax.typing import BlockIndex

NODES = 32  # whose slots are in scalar memory at once
LANES = 128  # of a register, to which channels are completed: rows of HBM are copied whole


class _Plan(NamedTuple):
    """What the kernel does, all known while tracing."""

    nodes: int
    slots: int
    vectors: bool
    directed: bool
    cutoff: float | None  # of a table

    @property
    def height(self) -> int:
        """Rows of a node's sums: scalars, and x, y and z if there are any."""
        return 4 if self.vectors or self.directed else 1


def _launch(scalars: Array, vectors: Array | None, weights: Weights, slots: Slots) -> Sums:
    nodes, channels = scalars.shape
    features = scalars[:, None]
    if vectors is not None:
        features = jnp.concatenate([features, vectors], 1)
    features, rows = (_in_lanes(part) for part in (features, _weight_rows(weights)))
    plan = _Plan(
        nodes=min(NODES, nodes),
        slots=slots.place.shape[1],
        vectors=vectors is not None,
        directed=slots.toward is not None,
        cutoff=weights.cutoff if isinstance(weights, TableFilter) else None,
    )
    present = jax.tree.leaves(slots.padded(-nodes % plan.nodes, 0))
    scalar = pl.BlockSpec((plan.nodes, plan.slots), _node_block, memory_space=pltpu.SMEM)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    dtype, lanes = accumulator(scalars.dtype), features.shape[-1]
    sums = pl.pallas_call(
        partial(_kernel, plan),
        grid=(present[0].shape[0] // plan.nodes,),
        in_specs=[*[scalar] * len(present), anywhere, anywhere],
        out_specs=pl.BlockSpec((plan.nodes, plan.height, lanes), _sums_block),
        out_shape=jax.ShapeDtypeStruct((present[0].shape[0], plan.height, lanes), dtype),
        scratch_shapes=[
            pltpu.VMEM((2, plan.slots, *features.shape[1:]), features.dtype),
            pltpu.VMEM((2, plan.slots, *rows.shape[1:]), rows.dtype),
            pltpu.SemaphoreType.DMA((2,)),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=backends.interpret(),
        name="edge_conv",
    )(*present, features, rows)
    sums = sums[:nodes, :, :channels].astype(scalars.dtype)
    return sums[:, 0], sums[:, 1:] if plan.height > 1 else None


def _weight_rows(weights: Weights) -> Array:
    """What a slot reads, together: parts (p, parts, c), or those of each power (intervals, 4 parts, c)."""
    if isinstance(weights, TableFilter):
        powers = zip(*weights.coefficients, strict=True)
        return jnp.stack([part for parts in powers for part in parts], 1)
    return jnp.stack(weights, 1)


def _in_lanes(array: Array) -> Array:
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % LANES)])


def _node_block(block: BlockIndex) -> tuple[BlockIndex, BlockIndex]:
    return block, 0


def _sums_block(block: BlockIndex) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
    return block, 0, 0


def _kernel(plan: _Plan, neighbours: jax.Ref, place: jax.Ref, *refs: jax.Ref) -> None:
    *toward, features, rows, outputs, near_features, near_rows, arrived = refs

    def each(node: Array, act: Callable[[Any], None]) -> None:
        """Start, or wait for, the copies of all slots of a node."""
        buffer = _buffer(node)

        def visit(slot: Array, carry: None) -> None:
            @pl.when(~(place[node, slot] < 0))  # true of a distance that is not a number, too
            def _() -> None:
                for far, at, near in (
                    (features, neighbours[node, slot], near_features),
                    (rows, _in_table(plan, rows, place[node, slot])[0], near_rows),
                ):
                    act(pltpu.make_async_copy(far.at[at], near.at[buffer, slot], arrived.at[buffer]))

            return carry

        _loop(plan.slots, visit, None)

    def sum_up(node: Array, carry: None) -> None:
        pl.when(node + 1 < plan.nodes)(lambda: each(node + 1, _start))
        each(node, _wait)
        buffer = _buffer(node)

        def add(slot: Array, total: Array) -> Array:
            directions = [along[node, slot] for along in toward]
            rest = _in_table(plan, rows, place[node, slot])[1]
            return total + _message(
                plan, near_features[buffer, slot], near_rows[buffer, slot], rest, directions
            )

        def visit(slot: Array, total: Array) -> Array:
            empty = place[node, slot] < 0
            reached: Array = jax.lax.cond(empty, lambda total: total, partial(add, slot), total)
            return reached

        outputs[node] = _loop(plan.slots, visit, jnp.zeros(outputs.shape[1:], outputs.dtype))
        return carry

    each(jnp.int32(0), _start)
    _loop(plan.nodes, sum_up, None)


def _message(plan: _Plan, features: Array, rows: Array, rest: Array, toward: list[Array]) -> Array:
    """Rows (height, c) that one slot adds to the sums of its node."""
    parts = rows if plan.cutoff is None else kernel.cubic(jnp.split(rows, 4), rest)
    row = jax.lax.broadcasted_iota(jnp.int32, (plan.height, rows.shape[-1]), 0)
    of_vectors = jnp.zeros(row.shape, rows.dtype)
    if plan.vectors:
        of_vectors = features * parts[1:2]
    if toward:
        x, y, z = toward
        of_vectors = of_vectors + jnp.where(row == 1, x, jnp.where(row == 2, y, z)) * parts[-1:]
    return jnp.where(row == 0, features[:1] * parts[:1], of_vectors)


def _in_table(plan: _Plan, rows: Any, place: Array) -> tuple[Array, Array]:
    """The row with the weights of a slot, and where in the interval of a table its distance is."""
    return (place, place) if plan.cutoff is None else kernel.in_table(place, rows.shape[0], plan.cutoff)


def _buffer(node: Array) -> Array:
    return jax.lax.rem(node, jnp.int32(2))


def _loop(count: int, body: Callable[[Array, Any], Any], start: Any) -> Any:
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), body, start)


def _start(copy: Any) -> None:
    copy.start()


def _wait(copy: Any) -> None:
    copy.wait()


edge_conv = kernel.with_kernel(_launch)
"""Cost: each filled slot reads one row of features and one of weights, or of a table, from HBM, all channels
of one node in flight while the one before is summed; about 15 vector operations per slot and 128 channels."""
