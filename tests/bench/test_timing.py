"""The race is interleaved, waits for results, and counts as it says."""

from __future__ import annotations

import gc

import pytest

from sparsejax.bench.timing import race


class FakeMachine:
    """A clock that moves only when a contestant works."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def contestant(self, name, seconds):
        def call():
            self.calls.append(name)
            self.now += seconds

        return call

    def race(self, seconds, **options):
        contestants = {name: self.contestant(name, value) for name, value in seconds.items()}
        return race(contestants, clock=self.clock, **options)


def test_medians_are_seconds_per_call():
    times = FakeMachine().race({"ours": 2e-6, "peer": 3e-4}, repetitions=5, repetition_seconds=1e-3)
    assert times["ours"].median == pytest.approx(2e-6)
    assert times["peer"].median == pytest.approx(3e-4)
    assert times["ours"].spread == pytest.approx(0, abs=1e-6)
    assert times["ours"].repetitions == 5


def test_short_calls_are_repeated_until_the_clock_can_see_them():
    times = FakeMachine().race({"short": 1e-6, "long": 1.0}, repetitions=3, repetition_seconds=1e-3)
    assert 1000 <= times["short"].calls <= 10_000
    assert times["long"].calls == 1


def test_repetitions_interleave_and_rotate():
    machine = FakeMachine()
    machine.race({"a": 1.0, "b": 1.0, "c": 1.0}, repetitions=3, repetition_seconds=0.5, time_limit=100)
    assert "".join(machine.calls[-9:]) == "abcbcacab"


def test_a_result_is_waited_for_in_every_call():
    class Pending:
        waited = 0

        def block_until_ready(self):
            Pending.waited += 1

    started = []
    race({"lazy": lambda: started.append(1) or Pending()}, repetitions=3, repetition_seconds=0)
    assert Pending.waited == len(started)


def test_the_first_call_is_told_apart():
    machine = FakeMachine()
    compiled = []

    def call():
        machine.now += 1e-3 if compiled else 5.0
        compiled.append(1)

    times = race({"jitted": call}, repetitions=3, clock=machine.clock)
    assert times["jitted"].first_call == pytest.approx(5.0)
    assert times["jitted"].median == pytest.approx(1e-3)


def test_the_time_limit_ends_a_race_after_three_rounds():
    times = FakeMachine().race({"slow": 10.0}, repetitions=50, time_limit=1)
    assert times["slow"].repetitions == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_off_meanwhile_and_then_as_before(enabled):
    seen, before = [], gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        race({"any": lambda: seen.append(gc.isenabled())}, repetitions=3, repetition_seconds=0)
        assert not any(seen)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
