"""From contestants that are whole networks to a row: outputs checked against float64, then a race."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsejax.bench.contest import Call, build
from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.torch_ten_weights import leaves
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import race

Error = Callable[[str, Any], float | None]
"""A contestant's name and its result to the error; None where there is nothing to compare with."""


@dataclass(frozen=True)
class NetworkRace:
    """One row to be, in milliseconds per call.

    Attributes:
      case: what is measured.
      ours: the call that the row is about.
      peers: by name: a function that builds the call; it may raise ModuleNotFoundError or PeerError.
      error_name: what ``error`` is, in words.
      error: of one contestant's result.
      bound: what limits ours, in words.
      variants: other ways to call this library.
      targets: what is aimed at.
      notes: what a reader should know.
    """

    case: str
    ours: Call
    peers: Mapping[str, Callable[[], Call]]
    error_name: str
    error: Error
    bound: str
    variants: Mapping[str, Call] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()


def decide(contest: NetworkRace, machine: Machine, *, quick: bool) -> Row:
    """Race the contestants of one row; a peer that is missing leaves its column empty, with a note."""
    built, seconds, notes = build(contest.peers)
    calls: dict[str, Call] = {"ours": contest.ours}
    calls |= {name: call for name, call in built.items() if call is not None}
    calls |= {f"ours: {name}": call for name, call in contest.variants.items()}
    errors, first_call = {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        result = call()
        first_call[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        errors[name] = contest.error(name, result)
    known = {name: error for name, error in errors.items() if error is not None}
    times = race(
        calls, repetitions=5 if quick else 11, repetition_seconds=1e-3, time_limit=5 if quick else 45
    )
    medians = {name: 1e3 * timing.median for name, timing in times.items()}
    return Row(
        case=contest.case,
        unit="ms",
        ours=medians["ours"],
        peers={name: medians.get(name) for name in contest.peers},
        quality={contest.error_name: known} if known else {},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=contest.targets,
        bound=contest.bound,
        variants={name: medians[f"ours: {name}"] for name in contest.variants},
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={name: 1e3 * timing.best for name, timing in times.items()},
        first_call=first_call,
        notes=[*contest.notes, *notes],
    )


def largest_difference(result: Any, exact: Any) -> float:
    """Of two arrays or tensors, such as logits; relative to the largest value, if that is above one."""
    exact = np.asarray(exact)
    difference = float(np.abs(np.asarray(result) - exact).max())
    return difference / max(1.0, float(np.abs(exact).max()))


def gradient_difference(result: tuple[Any, Any], exact: tuple[Any, Any]) -> float:
    """Of two pairs of loss and gradients: the largest over the loss and all leaves, each by its own size."""
    own, wanted = leaves(result[1]), leaves(exact[1])
    pairs = [(result[0], exact[0]), *((own[path], leaf) for path, leaf in wanted.items())]
    return max(_relative(*(_array(value) for value in pair)) for pair in pairs)


def _relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(found - exact).max() / max(float(np.abs(exact).max()), np.finfo(np.float64).tiny))


def _array(value: Any) -> np.ndarray:
    """Of a JAX array, or of a tensor on any device."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value, np.float64)
