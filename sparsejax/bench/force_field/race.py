"""From contestants that compute energies and forces to a row: both checked against float64, then a race."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sparsejax.bench.contest import Call, build
from sparsejax.bench.force_field.systems import Result
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.timing import race

ENERGY_ERROR, FORCE_ERROR = "max error of an energy to float64 (eV)", "of a force (eV/A)"


class Contestant(NamedTuple):
    """One way to compute energies and forces.

    Attributes:
      call: computes them, and waits.
      read: what it gives to energies (g,) and forces (n, 3).
    """

    call: Call
    read: Callable[[Any], Result]


@dataclass(frozen=True)
class ForceRace:
    """One row to be, in milliseconds per call.

    Attributes:
      case: what is measured.
      ours: the contestant that the row is about.
      peers: by name: a function that builds a call; it may raise ModuleNotFoundError or PeerError.
      read_peer: what peers give to energies and forces.
      exact: computes energies and forces in float64.
      bound: what limits ours, in words.
      variants: other ways to call this library.
      targets: what is aimed at.
      quality: further columns beside the errors.
      notes: what a reader should know.
    """

    case: str
    ours: Contestant
    peers: Mapping[str, Callable[[], Call]]
    read_peer: Callable[[Any], Result]
    exact: Callable[[], Result]
    bound: str
    variants: Mapping[str, Contestant] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def decide(contest: ForceRace, machine: Machine, *, quick: bool) -> Row:
    """Race the contestants of one row; a peer that is missing leaves its column empty, with a note."""
    built, seconds, notes = build(contest.peers)
    entries = {"ours": contest.ours}
    entries |= {name: Contestant(call, contest.read_peer) for name, call in built.items() if call is not None}
    entries |= {f"ours: {name}": entry for name, entry in contest.variants.items()}
    found, first_call = {}, {}
    for name, entry in entries.items():
        start = time.perf_counter()
        result = entry.call()
        first_call[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        found[name] = entry.read(result)
    times = race(
        {name: entry.call for name, entry in entries.items()},
        repetitions=5 if quick else 21,
        repetition_seconds=1e-3 if quick else 20e-3,
        time_limit=5 if quick else 90,
    )
    medians = {name: 1e3 * timing.median for name, timing in times.items()}
    return Row(
        case=contest.case,
        unit="ms",
        ours=medians["ours"],
        peers={name: medians.get(name) for name in contest.peers},
        quality={**_errors(found, contest.exact), **contest.quality},
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


def _errors(found: Mapping[str, Result], exact: Callable[[], Result]) -> dict[str, dict[str, float]]:
    energies, forces = exact()
    return {
        ENERGY_ERROR: {name: _largest(result[0], energies) for name, result in found.items()},
        FORCE_ERROR: {name: _largest(result[1], forces) for name, result in found.items()},
    }


def _largest(found: Any, truth: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - truth).max(initial=0.0))
