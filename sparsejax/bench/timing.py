"""Interleaved timing of contestants in one process: ours, peer, ours, peer, ...

One contestant after the other would charge the machine's mood to whoever ran when it was bad. So each
repetition runs all of them, in an order that rotates, and the median over repetitions is reported.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]

_MAX_CALLS = 20_000
_SETTLING = 0.02  # seconds: for some milliseconds the threads of the contestant before may spin


@dataclass(frozen=True)
class Timing:
    """What `race` found for one contestant; all times in seconds per call.

    Attributes:
      median: over the repetitions.
      low: lower quartile.
      high: upper quartile.
      best: fastest repetition: what the machine can do when nobody disturbs it.
      first_call: the first call, with its compilation.
      repetitions: how many, each of ``calls`` calls.
      calls: calls in one repetition, so that the clock's resolution does not matter.
    """

    median: float
    low: float
    high: float
    best: float
    first_call: float
    repetitions: int
    calls: int

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def race(
    contestants: Mapping[str, Call],
    *,
    repetitions: int = 21,
    repetition_seconds: float = 5e-3,
    time_limit: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contestants against each other.

    Each is called once for its compilation (timed apart), warmed up, and given as many calls per
    repetition as fill ``repetition_seconds``, after some that are not timed. Every call waits for its
    result (``block_until_ready`` where the result has it), so that queues hide nothing. The garbage
    collector is off meanwhile.

    Args:
      contestants: calls without arguments, by name.
      repetitions: of the interleaved round; an odd number has a real median.
      repetition_seconds: least duration of one contestant's share of a round.
      time_limit: seconds after which no new round starts (three rounds are always run).
      clock: for tests.

    Returns:
      `Timing` by name, in the order given.

    Example:
      >>> sorted(race({"ours": lambda: 1, "peer": lambda: 2}, repetitions=3))
      ['ours', 'peer']
    """
    names = list(contestants)
    with _no_garbage_collection():
        loops = {name: _loop(contestants[name], clock) for name in names}
        first = {name: loop.first_call for name, loop in loops.items()}
        calls = {name: loops[name].calibrate(repetition_seconds) for name in names}
        samples: dict[str, list[float]] = {name: [] for name in names}
        start = clock()
        for repetition in range(repetitions):
            if repetition >= 3 and clock() - start > time_limit:
                break
            for name in _rotated(names, repetition):
                loops[name].settle(_SETTLING)
                samples[name].append(loops[name].run(calls[name]) / calls[name])
    return {name: _summary(samples[name], first[name], calls[name]) for name in names}


class _loop:
    """A contestant with the way to wait for its result, found from its first one."""

    def __init__(self, call: Call, clock: Callable[[], float]):
        self.call, self.clock = call, clock
        start = clock()
        result = call()
        self.waits = hasattr(result, "block_until_ready")
        if self.waits:
            result.block_until_ready()
        self.first_call = self.per_call = clock() - start

    def run(self, count: int) -> float:
        """Seconds of ``count`` calls, each waited for."""
        call, rounds = self.call, range(count)
        start = self.clock()
        if self.waits:
            for _ in rounds:
                call().block_until_ready()
        else:
            for _ in rounds:
                call()
        return self.clock() - start

    def settle(self, seconds: float) -> None:
        """Calls that fill ``seconds``, none if one takes longer."""
        self.run(min(int(seconds / max(self.per_call, 1e-9)), _MAX_CALLS))

    def calibrate(self, seconds: float) -> int:
        """Calls that fill ``seconds``; the tries are the warm-up."""
        count = 1
        self.run(1)
        while count < _MAX_CALLS:
            taken = self.run(count)
            self.per_call = taken / count
            if taken >= seconds:
                break
            wanted = count * seconds / max(taken, 1e-9)
            count = int(min(max(2 * count, wanted), 10 * count, _MAX_CALLS))
        return count


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _summary(samples: list[float], first_call: float, calls: int) -> Timing:
    median = statistics.median(samples)
    low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (median, median, median)
    return Timing(median, low, high, min(samples), first_call, len(samples), calls)
