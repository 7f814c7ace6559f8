"""On a GPU: one token through a gated FFN of which a tenth is computed, in bfloat16 and in Q4_0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.sparse_inference_quantized import Part, Sizes
from sparsejax.bench.timing import race

SIZES = (Sizes(4096, 11_008), Sizes(8192, 28_672))
QUICK = (Sizes(64, 256, rotation=1 << 18),)
_DENSE, _AT_LEAST, _DRAWS = "dense, bfloat16", 4.0, 16


def measure(*, quick: bool, threads: int) -> list[Row]:
    """All rows, or none where jax finds no GPU."""
    import jax

    if jax.default_backend() != "gpu":
        return []
    machine = replace(Machine.describe(threads), device=f"{jax.devices()[0].device_kind} (gpu)")
    rows = []
    for sizes in QUICK if quick else SIZES:
        for row in rows_of(sizes, machine, quick=quick):
            tell(row)
            rows.append(row)
    return rows


def rows_of(sizes: Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Both precisions beside one dense product of all neurons.

    Args:
      sizes: of the FFN.
      machine: of the run.
      quick: fewer repetitions.
    """
    part = Part("q4_0", sizes)
    neurons = round(sizes.active * sizes.d_ff)
    sparse, dense = _bfloat16(sizes, neurons)
    calls = {_DENSE: dense, "bfloat16": sparse, "q4_0": part.call(sizes.active)}
    times = race(calls, repetitions=5 if quick else 51, time_limit=5 if quick else 30)
    copied = _copy_rate(quick=quick)
    for name, nbytes in (("bfloat16", 6 * neurons * sizes.d_model), ("q4_0", part.nbytes * sizes.active)):
        rate = 1e-9 * nbytes / times[name].median
        yield Row(
            case=f"{name}, gated FFN {sizes.d_model:,} x {sizes.d_ff:,}, {sizes.active:.0%} of the neurons",
            unit="us",
            ours=1e6 * times[name].median,
            peers={_DENSE: 1e6 * times[_DENSE].median},
            quality={"bandwidth": f"{rate:,.0f} GB/s, {100 * rate / copied:.0f} % of that of a copy"},
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
            targets=(Target(_DENSE, at_least=_AT_LEAST),),
            bound=f"memory: {nbytes / 1e6:.1f} MB at {copied:,.0f} GB/s = {1e-3 * nbytes / copied:.1f} us",
            spread={key: round(timing.spread, 3) for key, timing in times.items()},
            best={key: 1e6 * timing.best for key, timing in times.items()},
            first_call={key: timing.first_call for key, timing in times.items()},
        )


def _bfloat16(sizes: Sizes, neurons: int) -> tuple[Call, Call]:
    """Chosen neurons and all of them, of weights and draws that rotate."""
    import jax
    import jax.numpy as jnp

    from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn, listed_ffn

    copies = max(2, sizes.rotation // (6 * sizes.d_ff * sizes.d_model))

    def matrix(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (sizes.d_ff, sizes.d_model), jnp.bfloat16) / np.sqrt(sizes.d_model)

    keys = jax.random.split(jax.random.key(0), 3 * copies).reshape(copies, 3)
    weights = cycle([FFNWeights(*(matrix(key) for key in group)) for group in keys])
    draws = np.random.default_rng(0)
    lists = [np.sort(draws.permutation(sizes.d_ff)[:neurons]).astype(np.int32) for _ in range(_DRAWS)]
    turns, x = cycle(jax.device_put(lists)), jnp.ones((1, sizes.d_model), jnp.bfloat16)

    def some(x: Any, weights: Any, indices: Any) -> Any:
        return listed_ffn(x, weights, indices[None], activation="silu")

    sparse, dense = jax.jit(some), jax.jit(lambda x, weights: dense_ffn(x, weights, activation="silu"))
    return (
        lambda: sparse(x, next(weights), next(turns)).block_until_ready(),
        lambda: dense(x, next(weights)).block_until_ready(),
    )


def _copy_rate(*, quick: bool) -> float:
    """GB/s read and written by a copy."""
    import jax
    import jax.numpy as jnp

    source = jnp.ones((1 << 20 if quick else 1 << 29,), jnp.bfloat16)
    copy = jax.jit(lambda values: values + 1)
    found = race({"copy": lambda: copy(source).block_until_ready()}, repetitions=5)
    return 2e-9 * source.nbytes / found["copy"].median
