"""The recurrence as a Triton kernel for GPUs: one thread per eigenstate, states in registers.

A program walks one span of time for one row of the batch and a block of eigenstates. Where batch and
eigenstates alone do not fill the device, time is split into spans: a first launch finds only the end of each
span, `associative.entering` carries those across, and a second launch writes the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.linear_recurrence.adjoint import with_adjoint
from sparsejax.ops.linear_recurrence.associative import entering
from sparsejax.ops.linear_recurrence.decay import Decay, Pair, add, multiply, transition
from sparsejax.ops.linear_recurrence.powers import powers
from sparsejax.typing import BlockIndex

BLOCK = 128  # eigenstates of one program, one per thread
UNROLL = 8  # steps whose loads are issued together
RESIDENT_THREADS = 2**18  # an H100 or H200 holds 132 * 2048 threads at once
SHORTEST_SPAN = 128


class _Plan(NamedTuple):
    """What a launch does, all known while tracing."""

    batch: int
    length: int
    width: int
    span: int
    block: int
    selective: bool
    resets: bool
    reverse: bool
    only_ends: bool

    @property
    def spans(self) -> int:
        return pl.cdiv(self.length, self.span)

    @property
    def products(self) -> bool:
        """Whether the product of lambda over a span has to be found step by step."""
        return self.only_ends and (self.selective or self.resets)


def _forward(
    drive: Pair, decay: Decay, initial: Pair, reset: Array | None, *, reverse: bool = False
) -> tuple[Pair, Pair]:
    dtype = accumulator(drive[0].dtype)
    batch, length, width = drive[0].shape
    plan = _Plan(
        batch=batch,
        length=length,
        width=width,
        span=_span(batch, length, width),
        block=min(BLOCK, max(32, pl.next_power_of_2(width))),
        selective=decay.selective,
        resets=reset is not None,
        reverse=reverse,
        only_ends=False,
    )
    keep = () if reset is None else ((~reset).astype(dtype),)
    inputs = (*drive, *transition(decay, dtype), *keep)
    start = initial[0][:, None], initial[1][:, None]
    if plan.spans > 1:
        ends = _launch(plan._replace(only_ends=True), inputs, dtype)
        whole = powers(decay, jnp.array([plan.span])) if not (decay.selective or keep) else None
        products = (ends[2], ends[3]) if whole is None else (whole[0][None], whole[1][None])
        start = entering((ends[0], ends[1]), products, initial)
    real, imaginary, *final = _launch(plan, (*inputs, *start), dtype)
    return (real, imaginary), (final[0][:, -1], final[1][:, -1])


def _span(batch: int, length: int, width: int) -> int:
    """Steps of one program: all of them, or fewer where that leaves most of the device idle."""
    wanted = RESIDENT_THREADS // (batch * width)
    spans = max(1, min(wanted, length // SHORTEST_SPAN))
    return pl.cdiv(pl.cdiv(length, spans), UNROLL) * UNROLL


def _launch(plan: _Plan, inputs: tuple[Array, ...], dtype: jnp.dtype) -> tuple[Array, ...]:
    rows = pl.BlockSpec((None, plan.length, plan.block), _row_block)
    one = pl.BlockSpec((None, None, plan.block), _span_block)
    factor = rows if plan.selective else pl.BlockSpec((plan.block,), _width_block)
    in_specs = [rows, rows, factor, factor]
    if plan.resets:
        in_specs.append(pl.BlockSpec((None, plan.length), _batch_block))
    states = jax.ShapeDtypeStruct((plan.batch, plan.length, plan.width), inputs[0].dtype)
    ends = jax.ShapeDtypeStruct((plan.batch, plan.spans, plan.width), dtype)
    if plan.only_ends:
        count = 4 if plan.products else 2
        outputs, out_specs = [ends] * count, [one] * count
    else:
        in_specs += [one, one]
        outputs, out_specs = [states, states, ends, ends], [rows, rows, one, one]
    launched: tuple[Array, ...] = pl.pallas_call(
        partial(_kernel, plan, dtype),
        grid=(plan.batch, plan.spans, pl.cdiv(plan.width, plan.block)),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=outputs,
        compiler_params=plgpu.CompilerParams(num_warps=plan.block // 32, num_stages=1),
        interpret=backends.interpret(),
        name="linear_recurrence_ends" if plan.only_ends else "linear_recurrence",
    )(*inputs)
    return launched


def _row_block(
    batch: BlockIndex, span: BlockIndex, column: BlockIndex
) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
    del span
    return batch, 0, column


def _span_block(
    batch: BlockIndex, span: BlockIndex, column: BlockIndex
) -> tuple[BlockIndex, BlockIndex, BlockIndex]:
    return batch, span, column


def _width_block(batch: BlockIndex, span: BlockIndex, column: BlockIndex) -> tuple[BlockIndex]:
    del batch, span
    return (column,)


def _batch_block(batch: BlockIndex, span: BlockIndex, column: BlockIndex) -> tuple[BlockIndex, BlockIndex]:
    del span, column
    return batch, 0


def _kernel(plan: _Plan, dtype: jnp.dtype, *refs: jax.Ref) -> None:
    drive, factor, rest = refs[:2], refs[2:4], list(refs[4:])
    keep = rest.pop(0) if plan.resets else None
    inside = pl.program_id(2) * plan.block + jnp.arange(plan.block) < plan.width
    start = pl.program_id(1) * plan.span
    stop = jnp.minimum(start + plan.span, plan.length)
    constant = None if plan.selective else _read(factor, None, inside, dtype)
    zero = jnp.zeros(plan.block, dtype)
    if plan.only_ends:
        outputs, state = rest, (zero, zero)
    else:
        outputs, state = rest[2:], _read((rest[0], rest[1]), None, inside, dtype)

    def load(step: Array) -> tuple[Array, Array, Pair, Pair]:
        row = jnp.clip(plan.length - 1 - step if plan.reverse else step, 0, plan.length - 1)
        live = inside & (step < stop)
        by = _read(factor, row, live, dtype) if constant is None else constant
        if keep is not None:
            by = by[0] * keep[row], by[1] * keep[row]
        return row, live, by, _read(drive, row, live, dtype)

    def group(index: Array, carry: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
        steps = [start + index * UNROLL + offset for offset in range(UNROLL)]
        state, product = carry
        # All loads of a group are issued before its first multiplication waits for one.
        for step, (row, live, by, here) in zip(steps, [load(step) for step in steps], strict=True):
            state = _where(step < stop, add(multiply(by, state), here), state)
            if plan.products:
                product = _where(step < stop, multiply(by, product), product)
            if not plan.only_ends:
                _write((outputs[0], outputs[1]), row, state, live)
        return state, product

    start_product = zero + 1, zero
    groups = (stop - start + UNROLL - 1) // UNROLL
    state, product = jax.lax.fori_loop(0, groups, group, (state, start_product))
    ends = outputs if plan.only_ends else outputs[2:]
    _write((ends[0], ends[1]), None, state, inside)
    if plan.products:
        _write((ends[2], ends[3]), None, product, inside)


def _read(pair: Sequence[jax.Ref], row: Array | None, live: Array, dtype: jnp.dtype) -> Pair:
    real, imaginary = (plgpu.load(_at(ref, row), mask=live, other=0).astype(dtype) for ref in pair)
    return real, imaginary


def _write(pair: Sequence[jax.Ref], row: Array | None, value: Pair, live: Array) -> None:
    for ref, part in zip(pair, value, strict=True):
        plgpu.store(_at(ref, row), part.astype(ref.dtype), mask=live)


def _at(ref: jax.Ref, row: Array | None) -> Any:
    """One row of a block. Its column offset is an int32 like ``row``, which the interpreter insists on."""
    columns = pl.ds(jnp.int32(0), ref.shape[-1])
    return ref.at[columns] if row is None else ref.at[row, columns]


def _where(valid: Array, new: Pair, old: Pair) -> Pair:
    return jnp.where(valid, new[0], old[0]), jnp.where(valid, new[1], old[1])


run = with_adjoint(_forward)
"""Cost: 8 flops per state. With one span drive is read once and states are written once (16 bytes per state
in float32, 8 in bfloat16, plus 8 for a selective decay); with several spans drive is read twice, so at most
two thirds of the copy bandwidth. T / spans dependent steps. See `adjoint.Run` for the arguments.
"""
