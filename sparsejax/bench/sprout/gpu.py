"""On a GPU: the sparse feed-forward part beside dense ones at the size of a large network, in bfloat16."""

from __future__ import annotations

from dataclasses import replace

from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row
from sparsejax.bench.sprout import layers as ffn
from sparsejax.bench.sprout.speed import Way
from sparsejax.bench.sprout.speed import measure as measure_speed

SIZES = ffn.Sizes(4096, 16_384, (8192, 4096, 1638), block_size=128, layers=4, stack=4, dtype="bfloat16")
_WAYS = (Way("block router", "block", "auto", (1.25, 2.0, 3.0)),)
_TOKENS, _QUICK_TOKENS = (1, 128, 4096, 16_384), (1, 64)


def measure(*, quick: bool, threads: int) -> list[Row]:
    """All rows, or none where jax finds no GPU."""
    machine = Machine.of_gpu(threads)
    if machine is None:
        return []
    sizes = replace(ffn.QUICK, dtype="bfloat16", stack=2) if quick else SIZES
    plan = dict.fromkeys(_QUICK_TOKENS if quick else _TOKENS, _WAYS)
    rows = []
    for row in measure_speed(sizes, plan, machine, quick=quick, device="cuda"):
        tell(row)
        rows.append(row)
    return rows
