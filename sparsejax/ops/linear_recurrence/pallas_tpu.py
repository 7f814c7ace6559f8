"""The recurrence as a Mosaic kernel for TPUs: time as the sequential grid dimension, states in VMEM.

A tile of 8 rows of time (16 in two-byte dtypes) by the lanes of eigenstates is scanned in log2(rows) rounds
of shift, multiply and add, then the state that the previous tile left is added to all rows at once.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.adjoint import with_adjoint
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, multiply, transition
from sparsejax.typing import BlockIndex

LANES = 512  # eigenstates of one program, at most
STEPS = 256  # steps of time in VMEM at once, at most


class _Plan(NamedTuple):
    """What the kernel does, all known while tracing."""

    length: int
    steps: int
    rows: int
    lanes: int
    selective: bool
    resets: bool
    reverse: bool

    @property
    def chunks(self) -> int:
        return pl.cdiv(self.length, self.steps)


def _forward(
    drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
) -> tuple[Pair, Pair]:
    dtype = accumulator(drive[0].dtype)
    batch, length, width = drive[0].shape
    rows = 8 if drive[0].dtype.itemsize >= 4 else 16
    plan = _Plan(
        length=length,
        steps=min(STEPS, pl.cdiv(length, rows) * rows),
        rows=rows,
        lanes=min(LANES, width),
        selective=decay.selective,
        resets=reset is not None,
        reverse=reverse,
    )

    def time(chunk: BlockIndex) -> BlockIndex:
        return plan.chunks - 1 - chunk if reverse else chunk

    def steps_block(
        row: BlockIndex, column: BlockIndex, chunk: BlockIndex
    ) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
        return row, time(chunk), column

    def keep_block(
        row: BlockIndex, column: BlockIndex, chunk: BlockIndex
    ) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
        del column
        return row, time(chunk), 0

    steps = pl.BlockSpec((None, plan.steps, plan.lanes), steps_block)
    one = pl.BlockSpec((None, 1, plan.lanes), _row_block)
    factor = steps if plan.selective else pl.BlockSpec((1, plan.lanes), _width_block)
    by = transition(decay, dtype)
    inputs = [*drive, *(by if plan.selective else (by[0][None], by[1][None]))]
    in_specs = [steps, steps, factor, factor]
    if reset is not None:
        inputs.append((~reset).astype(dtype)[..., None])
        in_specs.append(pl.BlockSpec((None, plan.steps, 1), keep_block))
    states = jax.ShapeDtypeStruct(drive[0].shape, drive[0].dtype)
    final = jax.ShapeDtypeStruct((batch, 1, width), dtype)
    real, imaginary, *last = pl.pallas_call(
        partial(_kernel, plan, dtype),
        grid=(batch, pl.cdiv(width, plan.lanes), plan.chunks),
        in_specs=[*in_specs, one, one],
        out_specs=[steps, steps, one, one],
        out_shape=[states, states, final, final],
        scratch_shapes=[pltpu.VMEM((1, plan.lanes), dtype)] * 2,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=backends.interpret(),
        name="linear_recurrence",
    )(*inputs, initial[0][:, None], initial[1][:, None])
    return (real, imaginary), (last[0][:, 0], last[1][:, 0])


def _row_block(
    row: BlockIndex, column: BlockIndex, chunk: BlockIndex
) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
    del chunk
    return row, 0, column


def _width_block(row: BlockIndex, column: BlockIndex, chunk: BlockIndex) -> tuple[BlockIndex, BlockIndex]:
    del row, chunk
    return 0, column


def _kernel(plan: _Plan, dtype: jnp.dtype, *refs: jax.Ref) -> None:
    drive, factor, rest = refs[:2], refs[2:4], list(refs[4:])
    keep = rest.pop(0) if plan.resets else None
    initial, states, final, carry = (rest[i : i + 2] for i in (0, 2, 4, 6))
    position = pl.program_id(2)
    tiles = plan.steps // plan.rows
    first_step = (plan.chunks - 1 - position if plan.reverse else position) * plan.steps
    row = jax.lax.broadcasted_iota(jnp.int32, (plan.rows, plan.lanes), 0)

    @pl.when(position == 0)
    def _() -> None:
        carry[0][...], carry[1][...] = initial[0][...], initial[1][...]

    def tile(index: Array, state: Pair) -> Pair:
        place = tiles - 1 - index if plan.reverse else index
        start = pl.multiple_of(place * plan.rows, plan.rows)
        at = pl.ds(start, plan.rows)
        inside = first_step + start + row < plan.length
        by = _tile_factor(at)
        # Rows beyond the last step hold anything: a factor of one and no drive leave the state as it is.
        by = jnp.where(inside, by[0], 1), jnp.where(inside, by[1], 0)
        here = tuple(jnp.where(inside, ref[at, :].astype(dtype), 0) for ref in drive)
        every = _scan_tile(by, (here[0], here[1]), state, row, reverse=plan.reverse)
        for ref, part in zip(states, every, strict=True):
            ref[at, :] = part.astype(ref.dtype)
        last = slice(0, 1) if plan.reverse else slice(plan.rows - 1, plan.rows)
        return every[0][last], every[1][last]

    def _tile_factor(at: slice | pl.Slice) -> Pair:
        by = tuple(ref[at, :] if plan.selective else ref[...] for ref in factor)
        by = tuple(jnp.broadcast_to(part, row.shape) for part in by)
        return (by[0], by[1]) if keep is None else (by[0] * keep[at, :], by[1] * keep[at, :])

    state = jax.lax.fori_loop(0, tiles, tile, (carry[0][...], carry[1][...]))
    carry[0][...], carry[1][...] = state

    @pl.when(position == plan.chunks - 1)
    def _() -> None:
        final[0][...], final[1][...] = state


def _scan_tile(by: Pair, here: Pair, state: Pair, row: Array, *, reverse: bool) -> Pair:
    """States of the rows of a tile that ``state`` (1, k) enters: a prefix by doubling along the rows."""
    rows = row.shape[0]
    distance = 1
    while distance < rows:
        has_earlier = row < rows - distance if reverse else row >= distance
        shift = rows - distance if reverse else distance
        earlier_by = _shifted(by, shift, has_earlier, (1, 0))
        here = add(multiply(by, _shifted(here, shift, has_earlier, (0, 0))), here)
        by = multiply(by, earlier_by)
        distance *= 2
    return add(multiply(by, state), here)


def _shifted(pair: Pair, shift: int, present: Array, otherwise: tuple[int, int]) -> Pair:
    """Rows moved by ``shift`` in a circle, ``otherwise`` where none was there before."""
    real, imaginary = (pltpu.roll(part, shift, 0) for part in pair)
    return jnp.where(present, real, otherwise[0]), jnp.where(present, imaginary, otherwise[1])


run = with_adjoint(_forward)
"""Cost: about 80 flops per state on the vector unit (rows are scanned by doubling); drive is read once and
states are written once, 16 bytes per state in float32 and 8 in bfloat16, plus 8 for a selective decay. T / 8
dependent tiles. See `adjoint.Run` for the arguments. Compiled kernels have no float64.
"""
