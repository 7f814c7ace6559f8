"""On a GPU: one token through a gated FFN of which a tenth is computed, in bfloat16 and in Q4_0."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call
from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.sparse_inference.quantized import Part, Sizes, relative
from sparsejax.bench.timing import race

SIZES = (Sizes(4096, 11_008), Sizes(8192, 28_672))
QUICK = (Sizes(64, 256, rotation=1 << 18),)
_DENSE, _AT_LEAST, _DRAWS = "dense, bfloat16", 4.0, 16
_ERROR = "largest error over largest output"


def measure(*, quick: bool, threads: int) -> list[Row]:
    """All rows, or none where jax finds no GPU."""
    machine = Machine.of_gpu(threads)
    if machine is None:
        return []
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
    floats = _BFloat16(sizes)
    calls = {_DENSE: floats.dense(), "bfloat16": floats.sparse(), "q4_0": part.call(sizes.active)}
    times = race(calls, repetitions=5 if quick else 51, time_limit=5 if quick else 30)
    errors = {"bfloat16": floats.error(sparse=True), "q4_0": part.error(sizes.active)}
    copied, of_dense = _copy_rate(quick=quick), floats.error(sparse=False)
    # Of a quantised part whole tiles are computed.
    shares = {"bfloat16": floats.neurons / sizes.d_ff, "q4_0": part.neurons(sizes.active) / sizes.d_ff}
    for name, share in shares.items():
        nbytes = share * {"bfloat16": 6 * sizes.d_ff * sizes.d_model, "q4_0": part.nbytes}[name]
        rate = 1e-9 * nbytes / times[name].median
        yield Row(
            case=f"{name}, gated FFN {sizes.d_model:,} x {sizes.d_ff:,}, {100 * share:.1f} % of the neurons",
            unit="us",
            ours=1e6 * times[name].median,
            peers={_DENSE: 1e6 * times[_DENSE].median},
            quality={
                _ERROR: {"ours": errors[name], _DENSE: of_dense},
                "bandwidth": f"{rate:,.0f} GB/s, {100 * rate / copied:.0f} % of that of a copy",
            },
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
            targets=(Target(_DENSE, at_least=_AT_LEAST),),
            bound=f"memory: {nbytes / 1e6:.1f} MB at {copied:,.0f} GB/s = {1e-3 * nbytes / copied:.1f} us",
            spread={key: round(timing.spread, 3) for key, timing in times.items()},
            best={key: 1e6 * timing.best for key, timing in times.items()},
            first_call={key: timing.first_call for key, timing in times.items()},
        )


class _BFloat16:
    """Weights, lists of neurons and the calls of a gated part in bfloat16; weights and lists rotate."""

    def __init__(self, sizes: Sizes) -> None:
        import jax
        import jax.numpy as jnp

        from sparsejax.ops.sparse_ffn import FFNWeights

        def matrix(key: jax.Array) -> jax.Array:
            draw = jax.random.normal(key, (sizes.d_ff, sizes.d_model), jnp.bfloat16)
            return draw / np.sqrt(sizes.d_model)

        copies = max(2, sizes.rotation // (6 * sizes.d_ff * sizes.d_model))
        keys, draws = jax.random.split(jax.random.key(0), 3 * copies), np.random.default_rng(0)
        self.neurons = round(sizes.active * sizes.d_ff)
        self._weights = [FFNWeights(*map(matrix, group)) for group in keys.reshape(copies, 3)]
        self._lists = [
            np.sort(draws.permutation(sizes.d_ff)[: self.neurons]).astype(np.int32) for _ in range(_DRAWS)
        ]
        self._x = jnp.ones((1, sizes.d_model), jnp.bfloat16)

    def sparse(self) -> Call:
        """The chosen neurons."""
        import jax

        from sparsejax.ops.sparse_ffn import listed_ffn

        def some(x: Any, weights: Any, indices: Any) -> Any:
            return listed_ffn(x, weights, indices[None], activation="silu")

        step, weights, turns = jax.jit(some), cycle(self._weights), cycle(jax.device_put(self._lists))
        return lambda: step(self._x, next(weights), next(turns)).block_until_ready()

    def dense(self) -> Call:
        """All neurons."""
        import jax

        from sparsejax.ops.sparse_ffn import dense_ffn

        step, turns = (
            jax.jit(lambda x, weights: dense_ffn(x, weights, activation="silu")),
            cycle(self._weights),
        )
        return lambda: step(self._x, next(turns)).block_until_ready()

    def error(self, *, sparse: bool) -> float:
        """Of the first weights and the first list, to float64, over the largest output."""
        import jax

        kept = jax.device_put(self._lists[0]) if sparse else slice(None)
        x = np.asarray(self._x[0], np.float64)
        matrices: Any = self._weights[0][:3]
        w_in, w_out, gate = (np.asarray(part[kept], np.float64) for part in matrices)
        gates = gate @ x
        found = self.sparse() if sparse else self.dense()
        return relative(found()[0], (gates / (1 + np.exp(-gates)) * (w_in @ x)) @ w_out)


def _copy_rate(*, quick: bool) -> float:
    """GB/s read and written by a copy."""
    import jax
    import jax.numpy as jnp

    source = jnp.ones((1 << 20 if quick else 1 << 29,), jnp.bfloat16)
    copy = jax.jit(lambda values: values + 1)
    found = race({"copy": lambda: copy(source).block_until_ready()}, repetitions=5)
    return 2e-9 * source.nbytes / found["copy"].median
