"""Quantised weights: the rate at which all of them are multiplied, and a tenth of the neurons beside all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call, build
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import Timing, race

FLOAT32, GGML = "float32", "ggml (llama.cpp)"
_ROWS = "ours: planes by rows"
_SHARE_OF_RATE = {"q8_0": 0.6, "q4_0": 0.35}
_SPARSE_OVER_DENSE = 3.0
_TILE, _DRAWS = 32, 16
_NOTE = (
    "Quantised planes lie by columns (order='columns') where all rows are multiplied, gate and input "
    "by rows where some are taken. Rates: bytes of the weights over the time of one product with one token. "
    "Every call takes the next of "
    "several matrices, at least 1 GiB of them together but for llama.cpp's, which has as many as ours; its "
    "product also quantises the token to 8 bits."
)
_SPARSE_NOTE = (
    "Neurons are chosen in tiles of 32; which ones are computed is drawn anew for every call, and scores are "
    "not part of the time. The error is that "
    "against float64 products of the decoded weights with the same neurons."
)


@dataclass(frozen=True)
class Sizes:
    """Of a feed-forward part.

    Attributes:
      d_model: d.
      d_ff: f.
      rotation: bytes of weights that the calls of a contestant go through.
      formats: to measure.
      active: share of neurons.
    """

    d_model: int = 4096
    d_ff: int = 11_008
    rotation: int = 1 << 30
    formats: tuple[str, ...] = ("q8_0", "q4_0", "q4_k", "q6_k")
    active: float = 0.1


QUICK = Sizes(512, 1024, 4 << 20)


def measure(sizes: Sizes, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """The rows of every format."""
    for name in sizes.formats:
        yield dense_row(name, sizes, machine, quick=quick)
        yield sparse_row(name, sizes, machine, quick=quick)


def dense_row(name: str, sizes: Sizes, machine: Machine, *, quick: bool) -> Row:
    """The product of all rows with one token, as bytes of weights per second.

    Args:
      name: of the format.
      sizes: of the matrix.
      machine: of the run.
      quick: fewer repetitions.
    """
    from sparsejax.ops.quantized import FORMATS, QuantizedTensor, decode, encode

    shape = (sizes.d_ff, sizes.d_model)
    values, token = _matrix(shape), _token(sizes.d_model)
    raw = encode(values, name)
    exact = decode(raw, name).reshape(shape).astype(np.float64) @ token.astype(np.float64)
    tensor = QuantizedTensor.from_bytes(raw, name, shape, order="columns")
    contestants: dict[str, Callable[[], Call]] = {
        FLOAT32 + " (jax)": lambda: _float_jax(values, token, sizes),
        FLOAT32 + " (torch)": lambda: _float_torch(values, token, sizes),
        GGML: lambda: _ggml(raw, (FORMATS[name].type_id, shape), token, sizes, threads=machine.threads),
    }
    ours, rows = (_ours(one, token, sizes) for one in (tensor, tensor.ordered("rows")))
    built, _, notes = build(contestants)
    peers = {peer: call for peer, call in built.items() if call is not None}
    nbytes = dict.fromkeys(("ours", _ROWS, GGML), raw.nbytes)
    floats = values.astype(np.float64) @ token.astype(np.float64)
    errors = {"ours": relative(ours(), exact)}
    errors |= {peer: relative(call(), exact if peer == GGML else floats) for peer, call in peers.items()}
    calls = {"ours": ours, _ROWS: rows, **peers}
    times = race(calls, repetitions=5 if quick else 31, time_limit=5 if quick else 60)
    rates = {peer: 1e-9 * nbytes.get(peer, values.nbytes) / timing.median for peer, timing in times.items()}
    share = _SHARE_OF_RATE.get(name)
    return Row(
        case=f"{name}, {sizes.d_ff:,} x {sizes.d_model:,} times one token",
        unit="GB/s",
        ours=rates["ours"],
        peers={peer: rates.get(peer) for peer in contestants},
        quality={
            "largest error over largest output": errors,
            "times": ", ".join(f"{peer} {1e3 * timing.median:.2f} ms" for peer, timing in times.items()),
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=() if share is None else (Target(FLOAT32, at_least=share),),
        variants={_ROWS.removeprefix("ours: "): rates[_ROWS]},
        bound=f"memory: a sum reads {machine.memory_gb_s:.0f} GB/s; unpacking a code takes instructions",
        spread=_spread(times),
        best={peer: 1e-9 * nbytes.get(peer, values.nbytes) / timing.best for peer, timing in times.items()},
        first_call={peer: timing.first_call for peer, timing in times.items()},
        notes=[_NOTE, *notes],
    )


def sparse_row(name: str, sizes: Sizes, machine: Machine, *, quick: bool) -> Row:
    """A gated feed-forward part of which some blocks of neurons are computed, beside all of them.

    Args:
      name: of the format.
      sizes: of the part.
      machine: of the run.
      quick: fewer repetitions.
    """
    part = Part(name, sizes)
    sparse, dense = part.call(sizes.active), part.call(None)
    errors = {"ours": part.error(sizes.active), "all neurons": part.error(None)}
    times = race(
        {"ours": sparse, "all neurons": dense}, repetitions=5 if quick else 31, time_limit=5 if quick else 60
    )
    share = part.neurons(sizes.active) / sizes.d_ff
    nbytes = part.nbytes * share
    return Row(
        case=f"{name}, gated FFN {sizes.d_model:,} x {sizes.d_ff:,}, {100 * share:.1f} % of the neurons",
        unit="ms",
        ours=1e3 * times["ours"].median,
        peers={"all neurons": 1e3 * times["all neurons"].median},
        quality={"largest error over largest output": errors},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=(Target("all neurons", at_least=_SPARSE_OVER_DENSE),) if name in _SHARE_OF_RATE else (),
        bound=(
            f"memory: {nbytes / 1e6:.1f} MB at {machine.memory_gb_s:.0f} GB/s = "
            f"{1e3 * nbytes / machine.memory_gb_s / 1e9:.2f} ms; {1 / share:.1f}x of all neurons at most"
        ),
        spread=_spread(times),
        best={peer: 1e3 * timing.best for peer, timing in times.items()},
        first_call={peer: timing.first_call for peer, timing in times.items()},
        notes=[_SPARSE_NOTE],
    )


class Part:
    """Gated feed-forward parts of random weights in a format, one of which every call takes.

    Args:
      name: of the format.
      sizes: of the part.
    """

    def __init__(self, name: str, sizes: Sizes) -> None:
        from sparsejax.ops.quantized import QuantizedFFN, QuantizedTensor

        wide, narrow = (sizes.d_ff, sizes.d_model), (sizes.d_model, sizes.d_ff)
        self._sizes = sizes
        self._matrices = (
            QuantizedTensor.quantize(_matrix(wide, 2), name),
            QuantizedTensor.quantize(_matrix(narrow, 3), name, order="columns"),
            QuantizedTensor.quantize(_matrix(wide, 4), name),
        )
        self._weights = QuantizedFFN(*self._matrices)
        self.nbytes = sum(int(matrix.to_bytes().nbytes) for matrix in self._matrices)
        self._token = _token(sizes.d_model)

    def neurons(self, active: float) -> int:
        """How many are computed: whole tiles."""
        return _TILE * max(1, round(active * self._sizes.d_ff / _TILE))

    def call(self, active: float | None) -> Call:
        """A call that takes the next weights and the next draw of tiles; all neurons where None."""
        import jax

        copies = _copies(self.nbytes, self._sizes)
        many = [jax.tree.map(lambda leaf: leaf.copy(), self._weights) for _ in range(copies)]
        chosen = [None if active is None else jax.device_put(self._draw(active, n)) for n in range(_DRAWS)]
        turns, draws, x = cycle(many), cycle(chosen), jax.device_put(self._token)
        step = _step()
        return lambda: step(x, next(turns), next(draws)).block_until_ready()

    def error(self, active: float | None) -> float:
        """Of the first draw, to float64, over the largest output."""
        import jax

        tiles = None if active is None else self._draw(active, 0)
        found = _step()(jax.device_put(self._token), self._weights, tiles)
        w_in, w_out, gate = (np.asarray(matrix.dequantize(), np.float64) for matrix in self._matrices)
        if tiles is not None:
            neurons = (tiles[:, None] * _TILE + np.arange(_TILE)).reshape(-1)
            w_in, w_out, gate = w_in[neurons], w_out[:, neurons], gate[neurons]
        x = self._token.astype(np.float64)
        gates = gate @ x
        return relative(found, w_out @ (gates / (1 + np.exp(-gates)) * (w_in @ x)))

    def _draw(self, active: float, seed: int) -> np.ndarray:
        """Tiles of 32 neurons, in ascending order."""
        order = np.random.default_rng(seed).permutation(self._sizes.d_ff // _TILE)
        return np.sort(order[: self.neurons(active) // _TILE]).astype(np.int32)


@cache
def _step() -> Callable[..., Any]:
    import jax

    from sparsejax.ops.quantized import sparse_quantized_ffn

    return jax.jit(sparse_quantized_ffn)


def _matrix(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return draw / np.float32(np.sqrt(shape[1]))


def _token(size: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(size, np.float32)


def _copies(nbytes: int, sizes: Sizes) -> int:
    return max(2, -(-sizes.rotation // nbytes))


def _ours(tensor: Any, token: np.ndarray, sizes: Sizes) -> Call:
    import jax

    from sparsejax.ops.quantized import quantized_matmul

    # Copies, not references: each lies elsewhere in memory.
    many = [jax.tree.map(lambda leaf: leaf.copy(), tensor) for _ in range(_copies(tensor.nbytes, sizes))]
    step, turns, x = jax.jit(quantized_matmul), cycle(many), jax.device_put(token)
    return lambda: step(x, next(turns)).block_until_ready()


def _float_jax(values: np.ndarray, token: np.ndarray, sizes: Sizes) -> Call:
    import jax

    many = [jax.device_put(values.copy()) for _ in range(_copies(values.nbytes, sizes))]
    step, turns, x = jax.jit(lambda w, x: w @ x), cycle(many), jax.device_put(token)
    return lambda: step(next(turns), x).block_until_ready()


def _float_torch(values: np.ndarray, token: np.ndarray, sizes: Sizes) -> Call:
    import torch

    turns = cycle([torch.from_numpy(values.copy()) for _ in range(_copies(values.nbytes, sizes))])
    x = torch.from_numpy(token)
    return lambda: torch.mv(next(turns), x)


def _ggml(
    raw: np.ndarray, kind: tuple[int, tuple[int, int]], token: np.ndarray, sizes: Sizes, *, threads: int
) -> Call:
    from sparsejax.bench.peers.ggml_matrix import GgmlMatrix

    count = _copies(raw.nbytes, sizes)
    turns = cycle([GgmlMatrix(raw, *kind, threads=threads) for _ in range(count)])
    return lambda: next(turns)(token)


def relative(found: Any, exact: np.ndarray) -> float:
    """The largest error over the largest output."""
    return float(np.abs(np.asarray(found, np.float64) - exact).max() / np.abs(exact).max())


def _spread(times: Mapping[str, Timing]) -> dict[str, float]:
    return {peer: round(timing.spread, 3) for peer, timing in times.items()}
