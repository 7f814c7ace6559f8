"""The sparse feed-forward part beside the fastest dense one, router included, at several token counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsejax.bench.contest import build
from sparsejax.bench.machine import Machine
from sparsejax.bench.report import Row, Target
from sparsejax.bench.sprout import layers as ffn
from sparsejax.bench.sprout.selection import Exact, Found, summary
from sparsejax.bench.timing import Timing, race
from sparsejax.models.sprout.config import Path, RouterKind
from sparsejax.ops.sparse_ffn import block_count, choose_path

_PEERS = "dense"
_CHECKED_PAIRS, _CHECKED_PRODUCTS = 32, 1 << 32
_ERROR = "max error to float64, of the same choice"
_NOTE = (
    "Feed-forward parts: times of one layer, its router included; layers and inputs rotate, so that no call "
    "finds its weights in the cache. Weights are not trained, and every router repeats the neurons' own sums "
    "as well as its kind can: a block's mean, the best matrix of the rank, a copy of W1. The oracle chooses "
    "by the absolute activations, or by their sums over a block."
)


@dataclass(frozen=True)
class Way:
    """A router and a path, with what is aimed at.

    Attributes:
      words: of the case.
      router: kind of router.
      path: of `SproutFFN`.
      at_least: times faster than dense at each ``top_k``, where something is aimed at.
    """

    words: str
    router: RouterKind
    path: Path
    at_least: tuple[float | None, float | None, float | None] = (None, None, None)

    @property
    def by_blocks(self) -> bool:
        """Whether whole blocks are chosen."""
        return self.router == "block" or self.path == "block"

    def count(self, sizes: ffn.Sizes, top_k: int) -> int:
        """Of the scores, chosen per token."""
        return int(block_count(top_k, sizes.block_size)) if self.by_blocks else top_k

    def neurons(self, sizes: ffn.Sizes, top_k: int) -> int:
        """Computed per token."""
        return self.count(sizes, top_k) * (sizes.block_size if self.by_blocks else 1)

    def share_of_dense(self, sizes: ffn.Sizes, top_k: int) -> float:
        """Multiplications of router and neurons over those of all neurons."""
        both = 2 * self.neurons(sizes, top_k) * sizes.d_model + ffn.router_weights(sizes, self.router)
        return both / (2 * sizes.d_ff * sizes.d_model)


ONE_TOKEN = (
    Way("block router", "block", "auto", (1.25, 2.0, 3.0)),
    Way("rank-64 router, by blocks", "low_rank", "block", (1.15, 1.8, 2.7)),
    Way("rank-64 router, by neurons", "low_rank", "gather"),
    Way("linear router, by neurons", "linear", "gather"),
)
SOME_TOKENS = (Way("block router", "block", "auto", (None, None, 1.4)),)
MANY_TOKENS = (Way("block router", "block", "auto", (1.1, 1.6, 2.6)),)
PLAN = {1: ONE_TOKEN, 128: SOME_TOKENS, 4096: MANY_TOKENS}
QUICK_PLAN = {1: ONE_TOKEN, 8: SOME_TOKENS, 64: MANY_TOKENS}
"""By tokens of a call."""


@dataclass(frozen=True)
class Contest:
    """All contestants of one token count, in one race.

    Attributes:
      sizes: of the layers.
      tokens: of a call.
      ways: of ours.
      contestants: by name.
      first: seconds that building them took.
      exact: by number of the inputs, float64 of those that are looked at.
      every: of their tokens, one of so many is looked at.
      notes: about peers that are missing.
    """

    sizes: ffn.Sizes
    tokens: int
    ways: Sequence[Way]
    contestants: Mapping[str, ffn.Contestant | None]
    exact: Mapping[int, Exact]
    every: int = 1
    first: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def found(self, name: str, count: int = 0) -> list[Found]:
        """What a contestant gives for the pairs that are looked at."""
        contestant = self.contestants[name]
        assert contestant is not None
        results = []
        for number, exact in self.exact.items():
            pair = contestant.layer(number % self.sizes.layers), contestant.inputs[number]
            scores = None if contestant.scores is None else _array(contestant.scores(*pair))[:: self.every]
            results.append(Found(exact, _array(contestant.one(*pair))[:: self.every], scores, count))
        return results


def measure(
    sizes: ffn.Sizes,
    plan: Mapping[int, Sequence[Way]],
    machine: Machine,
    *,
    quick: bool,
    device: str = "cpu",
) -> Iterator[Row]:
    """The rows of every token count.

    Args:
      sizes: of the layers.
      plan: by tokens of a call, ways of ours.
      machine: of the run.
      quick: fewer repetitions, and no compiled torch.
      device: of torch's tensors.
    """
    for tokens, ways in plan.items():
        contest = assemble(sizes, tokens, ways, compiled=not quick, device=device)
        yield from rows(contest, machine, quick=quick)


def assemble(
    sizes: ffn.Sizes, tokens: int, ways: Sequence[Way], *, compiled: bool, device: str = "cpu"
) -> Contest:
    """Contestants of a token count; where `auto` leaves the path by blocks, that path runs beside it."""
    own: dict[str, ffn.Contestant] = {}
    for way in ways:
        for top_k in sizes.top_k:
            own[_name(way, top_k)] = ffn.ours(sizes, tokens, way.router, way.path, top_k)
            if _forced(sizes, tokens, way, top_k):
                own[_forced_name(way, top_k)] = ffn.ours(sizes, tokens, way.router, "block", top_k)
    peers, seconds, notes = build(ffn.dense_peers(sizes, tokens, compiled=compiled, device=device))
    exact, every = _exact(sizes, tokens)
    return Contest(sizes, tokens, ways, {**own, **peers}, exact, every, seconds, notes)


def rows(contest: Contest, machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Race the contestants of a token count; one row per way and ``top_k``."""
    present = {name: one for name, one in contest.contestants.items() if one is not None}
    times = race(
        {name: one.call() for name, one in present.items()},
        repetitions=5 if quick else 101,
        time_limit=5 if quick else 45,
    )
    errors = {
        name: max(one.error for one in contest.found(name)) for name in present if name.startswith(_PEERS)
    }
    for way in contest.ways:
        for number in range(len(contest.sizes.top_k)):
            yield _row(contest, way, number, times=times, dense_errors=errors, machine=machine)


def _row(
    contest: Contest,
    way: Way,
    number: int,
    *,
    times: Mapping[str, Timing],
    dense_errors: Mapping[str, float],
    machine: Machine,
) -> Row:
    sizes, tokens, top_k = contest.sizes, contest.tokens, contest.sizes.top_k[number]
    name, scale = _name(way, top_k), (1e6 if tokens == 1 else 1e3) / sizes.stack
    found = contest.found(name, way.count(sizes, top_k))
    peers = [name for name in contest.contestants if name.startswith(_PEERS)]
    forced = _forced_name(way, top_k)
    names = {"ours": name, **({"ours: by blocks": forced} if forced in times else {})}
    names |= {peer: peer for peer in peers if peer in times}
    at_least = way.at_least[number]
    return Row(
        case=_case(sizes, tokens, way, top_k),
        unit="us" if tokens == 1 else "ms",
        ours=scale * times[name].median,
        peers={peer: scale * times[peer].median if peer in times else None for peer in peers},
        quality={
            _ERROR: {"ours": max(one.error for one in found), **dense_errors},
            **summary(found),
            **_path_taken(sizes, tokens, way, top_k),
        },
        device=machine.device,
        threads=machine.threads,
        versions=machine.versions,
        targets=() if at_least is None else (Target(_PEERS, at_least=at_least),),
        bound=_bound(contest, way, top_k, times, machine),
        variants={"by blocks": scale * times[forced].median} if forced in times else {},
        spread={key: round(times[name].spread, 3) for key, name in names.items()},
        best={key: scale * times[name].best for key, name in names.items()},
        first_call={
            key: times[name].first_call + contest.first.get(name, 0.0) for key, name in names.items()
        },
        notes=[_NOTE, *contest.notes],
    )


def _case(sizes: ffn.Sizes, tokens: int, way: Way, top_k: int) -> str:
    count = way.count(sizes, top_k)
    what = f"{count} blocks of {sizes.block_size}" if way.by_blocks else f"{count:,} neurons"
    return f"{tokens:,} token{'s' * (tokens > 1)}, {way.words}, {what} of {sizes.d_ff:,}"


def _bound(contest: Contest, way: Way, top_k: int, times: Mapping[str, Timing], machine: Machine) -> str:
    """What one layer has to read, or to multiply, and the ratio that its multiplications leave room for."""
    sizes, share = contest.sizes, way.share_of_dense(contest.sizes, top_k)
    numbers = 2 * sizes.d_ff * sizes.d_model * share
    ceiling = f"multiplications allow {1 / share:.2f}x of dense"
    if contest.tokens == 1:
        nbytes = numbers * sizes.itemsize
        microseconds = nbytes / machine.memory_gb_s / 1e3
        return (
            f"memory: {nbytes / 1e6:.2f} MB at {machine.memory_gb_s:.0f} GB/s = {microseconds:.0f} us; "
            f"{machine.dispatch_bound()}; {ceiling}"
        )
    quickest = min(timing.best for name, timing in times.items() if name.startswith(_PEERS)) / sizes.stack
    work = 2.0 * numbers * contest.tokens
    rate = work / share / quickest
    return (
        f"matrix products: {work / 1e9:,.2f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, the rate of the fastest "
        f"dense peer in this run = {1e3 * work / rate:,.2f} ms; {ceiling}"
    )


def _path_taken(sizes: ffn.Sizes, tokens: int, way: Way, top_k: int) -> dict[str, str]:
    if way.path != "auto":
        return {}
    path = _auto(sizes, tokens, way, top_k)
    return {"auto takes": "the dense products, masked" if path == "masked" else f"the path {path!r}"}


def _forced(sizes: ffn.Sizes, tokens: int, way: Way, top_k: int) -> bool:
    return way.path == "auto" and way.by_blocks and _auto(sizes, tokens, way, top_k) == "masked"


def _auto(sizes: ffn.Sizes, tokens: int, way: Way, top_k: int) -> str:
    return choose_path(tokens, sizes.d_ff, top_k, sizes.block_size if way.by_blocks else 1)


def _exact(sizes: ffn.Sizes, tokens: int) -> tuple[dict[int, Exact], int]:
    """By number of the inputs, and of how many tokens one is looked at: float64 takes its time."""
    rotating, layers = ffn.inputs(sizes, tokens), ffn.layers(sizes)
    checked = max(1, _CHECKED_PRODUCTS // (sizes.d_model * sizes.d_ff))
    pairs = range(min(_CHECKED_PAIRS, len(rotating), max(1, checked // tokens)))
    every = -(-tokens // checked)
    return {n: Exact(layers[n % len(layers)], rotating[n][::every]) for n in pairs}, every


def _name(way: Way, top_k: int) -> str:
    return f"{way.router}, {way.path}, {top_k}"


def _forced_name(way: Way, top_k: int) -> str:
    return f"{way.router}, by blocks, {top_k}"


def _array(values: Any) -> np.ndarray:
    """Of a JAX array or a tensor, of any number type and on any device."""
    if hasattr(values, "cpu"):
        return np.asarray(values.float().cpu())
    return np.asarray(values).astype(np.float32)
