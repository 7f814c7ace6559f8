"""From contestants to a row: check every one against an oracle, race them, write down both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from sparsejax.bench.machine import Machine
from sparsejax.bench.peers.torch_net import PeerError
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import race

Call = Callable[[], Any]
Built = TypeVar("Built")
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class Contest:
    """One row to be.

    Attributes:
      case: what is measured.
      ours: the call that the row is about.
      peers: by name: a function that builds the call; it may raise ModuleNotFoundError or PeerError.
      oracle: float64 outputs that all must give.
      bound: what limits ours, in words.
      variants: other ways to call this library.
      targets: what is aimed at.
      quality: further error columns.
    """

    case: str
    ours: Call
    peers: Mapping[str, Callable[[], Call]]
    oracle: np.ndarray
    bound: str
    variants: Mapping[str, Call] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)


def decide(contest: Contest, machine: Machine, *, quick: bool) -> Row:
    """Race the contestants of one row. A peer that is missing leaves its column empty, with a note."""
    built, seconds, notes = build(contest.peers)
    variants = {f"ours: {name}": call for name, call in contest.variants.items()}
    calls = {"ours": contest.ours, **{name: call for name, call in built.items() if call}, **variants}
    errors, first_call = {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        outputs = np.ravel(call())
        first_call[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        errors[name] = float(np.abs(outputs - contest.oracle).max())
    times = race(calls, repetitions=7 if quick else 31, time_limit=5 if quick else 60)
    medians = {name: timing.median * _MICROSECONDS for name, timing in times.items()}
    return Row(
        case=contest.case,
        unit="us",
        ours=medians["ours"],
        peers={name: medians.get(name) for name in contest.peers},
        quality={"max error to float64": errors, **contest.quality},
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=contest.targets,
        bound=contest.bound,
        variants={name: medians[f"ours: {name}"] for name in contest.variants},
        spread={name: round(timing.spread, 3) for name, timing in times.items()},
        best={name: timing.best * _MICROSECONDS for name, timing in times.items()},
        first_call=first_call,
        notes=notes,
    )


def build(
    peers: Mapping[str, Callable[[], Built]],
) -> tuple[dict[str, Built | None], dict[str, float], list[str]]:
    """What the peers build (None where it cannot be had), the seconds that building took, and why not."""
    calls: dict[str, Built | None] = {}
    seconds: dict[str, float] = {}
    notes: list[str] = []
    for name, builder in peers.items():
        start = time.perf_counter()
        try:
            calls[name] = builder()
        except ModuleNotFoundError as error:
            calls[name] = None
            notes.append(f"{error.name} is not installed: the columns that need it are empty.")
        except PeerError as error:
            calls[name] = None
            notes.append(f"{name} is empty: {error}")
        seconds[name] = time.perf_counter() - start
    return calls, seconds, list(dict.fromkeys(notes))
