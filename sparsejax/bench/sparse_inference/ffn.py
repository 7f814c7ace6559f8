"""Feed-forward parts that compute the neurons a predictor names, beside the fastest dense ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from sparsejax.bench.contest import build
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers import dense_ffn as peers
from sparsejax.bench.pinned import tell
from sparsejax.bench.report import Row, Target
from sparsejax.bench.sparse_inference.layers import GATED, LARGE, PREFILL, QUICK, SMALL, Layers, Sizes
from sparsejax.bench.timing import Timing, race
from sparsejax.models.sparse_inference.calibration.compensation import Compensation, fit_compensation
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.ops.sparse_ffn import dense_ffn, listed_ffn

_PEERS = "dense"
_FLOAT32 = ", float32 predictor"
_NOTE = (
    "Sparse feed-forward parts: weights are random and at least 1 GiB of them rotate, with other inputs "
    "each time, so that no call finds its weights in the cache. Inputs lie near a subspace, as those of "
    "trained networks do; biases let about the stated part of the neurons be active. Predictors are the "
    "principal directions of sample inputs, times the weights; of those in Q8_0 the float32 ones are "
    "timed beside. In prefill, neurons differ in how often they act, as those of trained networks do, and "
    "stand in that order. Recall is of the active among the k strongest."
)


@dataclass(frozen=True)
class Way:
    """A sparse way to compute a layer, with what is aimed at.

    Attributes:
      words: of the case.
      active: part of the neurons.
      predicts: the predictor and the choice are included; else the neurons are given.
      at_least: times faster than dense.
    """

    words: str
    active: float
    predicts: bool
    at_least: float | None = None


LARGE_WAYS = (
    Way("neurons given", 0.1, False, 4.0),
    Way("neurons given", 0.05, False, 8.0),
    Way("predictor included", 0.1, True, 3.0),
    Way("predictor included", 0.05, True, 5.0),
)
SMALL_WAYS = (Way("neurons given", 0.1, False), Way("predictor included", 0.1, True, 1.5))

Calls = Mapping[str, "Turning | None"]


def measure(*, group: str, quick: bool, threads: int) -> list[Row]:
    """One of the groups "large", "gated", "small" and "prefill" here; the caller limits threads.

    Args:
      group: its name.
      quick: small sizes and fewer repetitions: a test of the benchmark, not a measurement.
      threads: of every contestant.
    """
    machine, rows = Machine.describe(threads), []
    for row in GROUPS[group](machine, quick):
        tell(row)
        rows.append(row)
    return rows


def measure_tokens(sizes: Sizes, ways: Sequence[Way], machine: Machine, *, quick: bool) -> Iterator[Row]:
    """One row per way for single tokens; all contestants of one active part run in one race.

    Args:
      sizes: of the layers.
      ways: of ours.
      machine: of the run.
      quick: fewer repetitions.
    """
    for active in dict.fromkeys(way.active for way in ways):
        layers = Layers(sizes, active)
        mine = [way for way in ways if way.active == active]
        calls = {_name(way): _one_token(layers, way) for way in mine}
        if sizes.quantises:
            predicting = [way for way in mine if way.predicts]
            calls |= {_name(way) + _FLOAT32: _one_token(layers, way, layers.predictors) for way in predicting}
        dense, seconds, notes = dense_calls(layers)
        times = timed({**calls, **dense}, quick)
        for way in mine:
            yield _row(layers, way, times, dense, machine, seconds=seconds, notes=notes)


def measure_prefill(
    sizes: Sizes, machine: Machine, *, tokens: int = 512, active: float = 0.5, rank: int = 64, quick: bool
) -> Iterator[Row]:
    """Many tokens that share their choice of blocks, with and without a compensation.

    Args:
      sizes: of the layers.
      machine: of the run.
      tokens: of a call.
      active: part of the neurons.
      rank: of the compensation.
      quick: fewer repetitions.
    """
    import jax

    layers = Layers(sizes, active, tokens=tokens)
    plan, sparsity = FFNPlan(block_size=sizes.block, group=0), SparsityConfig.with_active_fraction(active)
    fitted = [_fitted(layers, number, sparsity, plan, rank) for number in range(sizes.layers)]

    def sparse(weights: Any, inputs: Any, predictor: Any, repair: Any) -> Any:
        scores, name = predictor.scores(inputs), layers.activation
        return predicted_ffn(inputs, weights, scores, sparsity, activation=name, plan=plan, fitted=repair)

    step = jax.jit(sparse)
    groups = [(layers.weights[n], layers.predictors[n], fitted[n]) for n in range(sizes.layers)]
    call = Turning(lambda group, x: step(group[0], x, group[1], group[2]), groups, layers.inputs)
    bare = Turning(lambda group, x: step(group[0], x, group[1], None), groups, layers.inputs)
    dense, seconds, notes = dense_calls(layers)
    times = timed({"ours": call, "ours: without compensation": bare, **dense}, quick, few=True)
    exact = np.asarray(layers.dense(0, 0))
    errors = {
        name: relative(
            np.asarray(step(layers.weights[0], layers.inputs[0], layers.predictors[0], repair)), exact
        )
        for name, repair in (("with compensation", fitted[0]), ("without", None))
    }
    kept = chosen(layers.predictors[0].scores(layers.inputs[0]), sparsity, plan)
    work = 4 * tokens * sizes.d_ff * sizes.d_model * (1.5 if sizes.gated else 1)
    rate = work / min(time.best for name, time in times.items() if name.startswith(_PEERS))
    yield as_row(
        f"prefill of {tokens} tokens, {sizes.words}, {active:.0%} active in shared blocks of {sizes.block}",
        "ms",
        times,
        dense,
        machine,
        quality={
            "relative output error": errors,
            "that of dense": dense_errors(layers, dense),
            "recall of the active": f"{layers.recall(0, 0, np.asarray(kept)):.2f} (chance {active:.2f})",
        },
        target=1.3,
        bound=f"matrix products: {active * work / 1e9:,.0f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, that of the "
        f"fastest dense peer = {1e3 * active * work / rate:,.0f} ms; they allow {1 / active:.1f}x of dense",
        seconds=seconds,
        notes=notes,
    )


def _large(machine: Machine, quick: bool) -> Iterator[Row]:
    return measure_tokens(QUICK if quick else LARGE, LARGE_WAYS, machine, quick=quick)


def _gated(machine: Machine, quick: bool) -> Iterator[Row]:
    sizes = replace(QUICK, gated=True) if quick else GATED
    return measure_tokens(sizes, LARGE_WAYS, machine, quick=quick)


def _small(machine: Machine, quick: bool) -> Iterator[Row]:
    return measure_tokens(QUICK if quick else SMALL, SMALL_WAYS, machine, quick=quick)


def _prefill(machine: Machine, quick: bool) -> Iterator[Row]:
    tokens, sizes = (24, replace(QUICK, spread=1.5)) if quick else (512, PREFILL)
    return measure_prefill(sizes, machine, tokens=tokens, rank=tokens // 8, quick=quick)


GROUPS: dict[str, Callable[[Machine, bool], Iterator[Row]]] = {
    "large": _large,
    "gated": _gated,
    "small": _small,
    "prefill": _prefill,
}
"""In the order of the table."""


def _one_token(layers: Layers, way: Way, predictors: Sequence[Any] | None = None) -> Turning:
    import jax

    numbers = range(layers.sizes.layers)
    if way.predicts:
        predictors = layers.scorers if predictors is None else predictors
        return Turning(
            lambda group, x: layers.predicted(group[0], x, group[1]),
            list(zip(layers.weights, predictors, strict=True)),
            layers.inputs,
        )
    step = jax.jit(lambda weights, x, listed: listed_ffn(x, weights, listed, activation=layers.activation))
    lists = [[layers.best(n, m) for m in range(len(layers.inputs))] for n in numbers]
    pairs = [(layers.weights[n], lists[n]) for n in numbers]
    numbered = list(enumerate(layers.inputs))
    return Turning(lambda pair, given: step(pair[0], given[1], pair[1][given[0]]), pairs, numbered)


def _row(
    layers: Layers,
    way: Way,
    times: Mapping[str, Timing],
    dense: Calls,
    machine: Machine,
    *,
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> Row:
    sizes, own = layers.sizes, _name(way)
    looked_at = [(n, m) for n in range(min(2, sizes.layers)) for m in range(min(3, len(layers.inputs)))]
    errors, recalls, numeric = [], [], []
    for layer, number in looked_at:
        kept = layers.kept(layer, number) if way.predicts else layers.best_mask(layer, number)
        outputs = np.asarray(layers.outputs(layer, number, predicts=way.predicts))
        exact = layers.exact(layer, number, None)
        errors.append(relative(outputs, exact))
        numeric.append(relative(outputs, layers.exact(layer, number, kept)))
        recalls.append(layers.recall(layer, number, kept))
    nbytes = layers.bytes_read(predicts=way.predicts)
    reads = nbytes / machine.memory_gb_s / 1e3
    ceiling = layers.bytes_dense / nbytes
    names = {own: "ours", own + _FLOAT32: "ours: float32 predictor", **{name: name for name in dense}}
    renamed = {names[name]: time for name, time in times.items() if name in names}
    return as_row(
        f"1 token, {sizes.words}, {way.active:.0%} active, {way.words}",
        "us",
        renamed,
        dense,
        machine,
        quality={
            "relative output error": f"{np.mean(errors):.3f}",
            "error to float64, of the same choice": {
                "ours": float(np.max(numeric)),
                **dense_errors(layers, dense),
            },
            "recall of the active": f"{np.mean(recalls):.3f} (chance {way.active:.2f})",
        },
        target=way.at_least,
        bound=f"memory: {nbytes / 1e6:.1f} MB at {machine.memory_gb_s:.0f} GB/s = {reads:,.0f} us; "
        f"bytes allow {ceiling:.1f}x of dense",
        seconds=seconds,
        notes=notes,
    )


def as_row(
    case: str,
    unit: str,
    times: Mapping[str, Timing],
    dense: Calls,
    machine: Machine,
    *,
    quality: Mapping[str, Any],
    target: float | None,
    bound: str,
    seconds: Mapping[str, float],
    notes: Sequence[str],
) -> Row:
    """A row of times, of which the call named "ours" is what it is about.

    Args:
      case: what is measured.
      unit: "us" or "ms".
      times: by contestant; those that begin with "ours: " are variants.
      dense: the peers.
      machine: of the run.
      quality: errors and recall.
      target: times faster than the fastest dense peer; None aims at nothing.
      bound: what limits ours, in words.
      seconds: that building the peers took.
      notes: of the peers.
    """
    scale = 1e6 if unit == "us" else 1e3
    variants = {name.removeprefix("ours: "): time for name, time in times.items() if name.startswith("ours:")}
    return Row(
        case=case,
        unit=unit,
        ours=scale * times["ours"].median,
        peers={name: scale * times[name].median if name in times else None for name in dense},
        quality=quality,
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=() if target is None else (Target(_PEERS, at_least=target),),
        bound=bound,
        variants={name: scale * time.median for name, time in variants.items()},
        spread={name: round(time.spread, 3) for name, time in times.items()},
        best={name: scale * time.best for name, time in times.items()},
        first_call={name: time.first_call + seconds.get(name, 0.0) for name, time in times.items()},
        notes=[_NOTE, *notes],
    )


def dense_calls(layers: Layers) -> tuple[Calls, Mapping[str, float], Sequence[str]]:
    """Calls of the dense contestants; those that cannot be had are None, with a note."""
    import jax

    step = jax.jit(lambda weights, x: dense_ffn(x, weights, activation=layers.activation))

    def ours() -> Turning:
        return Turning(step, layers.weights, layers.inputs)

    def torch(function: Any, *, transposed: bool) -> Turning:
        import torch

        inputs = [torch.from_dlpack(x) for x in layers.inputs]
        tensors = [peers.tensors(layer, transposed=transposed) for layer in layers.plain()]
        return Turning(peers.without_gradients(function), tensors, inputs)

    def numpy() -> Turning:
        arrays = [peers.Dense(*(None if p is None else np.asarray(p) for p in one)) for one in layers.plain()]
        return Turning(peers.numpy_rows, arrays, [np.asarray(x) for x in layers.inputs])

    return build(
        {
            "dense JAX": ours,
            "dense torch, W2 (o, f)": lambda: torch(peers.torch_linear, transposed=True),
            "dense torch, W2 (f, o)": lambda: torch(peers.torch_rows, transposed=False),
            "dense NumPy": numpy,
        }
    )


@dataclass(frozen=True)
class Turning:
    """A call that takes the next layer and the next inputs each time.

    Attributes:
      step: of a layer and inputs.
      groups: what it takes of each layer.
      inputs: that rotate.
    """

    step: Callable[[Any, Any], Any]
    groups: Sequence[Any]
    inputs: Sequence[Any]
    _turn: Iterator[int] = field(default_factory=count, init=False)

    def __call__(self) -> Any:
        """The next outputs."""
        number = next(self._turn)
        return self.step(self.groups[number % len(self.groups)], self.inputs[number % len(self.inputs)])

    def first(self) -> Any:
        """Outputs of the first layer for the first inputs."""
        return self.step(self.groups[0], self.inputs[0])


def dense_errors(layers: Layers, dense: Calls) -> dict[str, float]:
    """Of the peers, to float64, for the first layer and the first inputs."""
    exact = layers.exact(0, 0, None)
    return {
        name: relative(np.asarray(call.first()), exact) for name, call in dense.items() if call is not None
    }


def timed(calls: Calls, quick: bool, *, few: bool = False) -> dict[str, Timing]:
    """Times of the contestants that there are.

    Args:
      calls: by name; None where one cannot be had.
      quick: a test of the benchmark.
      few: calls take so long that a few are enough.
    """
    present = {name: call for name, call in calls.items() if call is not None}
    most = 5 if quick else 11 if few else 101
    return race(present, repetitions=most, time_limit=5 if quick else 60)


def _fitted(layers: Layers, number: int, sparsity: Any, plan: FFNPlan, rank: int) -> Compensation:
    """Fitted to what the layer drops for sample inputs, other ones than are timed."""
    inputs, weights = layers.samples, layers.weights[number]
    scores = layers.predictors[number].scores(inputs)
    sparse = predicted_ffn(inputs, weights, scores, sparsity, activation=layers.activation, plan=plan)
    exact = dense_ffn(inputs, weights, activation=layers.activation)
    return fit_compensation(inputs, exact - sparse, rank=rank)


def relative(outputs: np.ndarray, exact: np.ndarray) -> float:
    """The error's norm over that of what is exact."""
    return float(np.linalg.norm(outputs - exact) / np.linalg.norm(exact))


def _name(way: Way) -> str:
    return f"{way.words}, {way.active}"
