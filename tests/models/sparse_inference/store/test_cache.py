"""Eviction against a simulator that handles one unit at a time, by a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.models.sparse_inference.store.cache import SlotCache
from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics

UNITS, SLOTS = 9, 4
STRATEGIES = ("lru", "lfu", "fifo")
ids = st.sets(st.integers(0, UNITS - 1), max_size=SLOTS)
steps = st.lists(st.tuples(st.sampled_from(["use", "use", "prefetch", "pin"]), ids), max_size=40)


class Simulator:
    """A dictionary of units; each remembers when it came, when it was used last, and how often."""

    def __init__(self, slots, strategy):
        self.slots, self.strategy, self.now = slots, strategy, 0
        self.there: dict[int, dict] = {}
        self.pinned: set[int] = set()
        self.seen = CacheStatistics()

    def worth(self, unit):
        of = self.there[unit]
        return {"lru": of["used"], "lfu": (of["uses"], of["used"]), "fifo": of["came"]}[self.strategy]

    def request(self, units, *, prefetch=False):
        here = sorted(unit for unit in units if unit in self.there)
        self.seen.calls += not prefetch
        for unit in here if not prefetch else []:
            self.now += 1
            of = self.there[unit]
            self.seen.prefetch_useful += of["ahead"]
            of.update(used=self.now, uses=of["uses"] + 1, ahead=False)
            self.seen.hits += 1
            self.seen.hot_hits += unit in self.pinned
        for unit in sorted(set(units) - set(here)):
            if len(self.there) == self.slots:
                others = [other for other in self.there if other not in units and other not in self.pinned]
                if not others:
                    assert prefetch
                    break
                leaving = min(others, key=self.worth)
                self.seen.evictions += 1
                self.seen.prefetch_wasted += self.there.pop(leaving)["ahead"]
            self.now += 1
            self.there[unit] = {
                "came": self.now,
                "used": self.now,
                "uses": int(not prefetch),
                "ahead": prefetch,
            }
            self.seen.prefetched += prefetch
            self.seen.misses += not prefetch


def check(cache):
    """Slots and units say the same of each other."""
    for unit in cache.resident:
        assert cache.unit_in[cache.slot_of[unit]] == unit
    assert (cache.unit_in >= 0).sum() == len(cache.resident)
    assert not (cache.pinned & (cache.unit_in < 0)).any()


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(steps=steps)
def test_the_same_units_stay_as_in_the_simulator(strategy, steps):
    cache, simulator, counted = (
        SlotCache(UNITS, SLOTS, strategy),
        Simulator(SLOTS, strategy),
        CacheStatistics(),
    )
    for kind, units in steps:
        if kind == "pin":
            simulator.pinned = {unit for unit in units if unit in simulator.there}
            cache.pin(sorted(simulator.pinned))
            for unit in simulator.pinned:
                simulator.there[unit]["ahead"] = False
        else:
            prefetch = kind == "prefetch"
            if not prefetch and len(units | simulator.pinned) > SLOTS:
                before = cache.resident
                with pytest.raises(ValueError, match="do not fit into 4 slots"):
                    cache.request(sorted(units))
                assert np.array_equal(cache.resident, before)
                continue
            plan = cache.plan(sorted(units), prefetch=prefetch)
            counted.count(cache, plan)
            cache.evict(plan)
            cache.settle(plan)
            assert np.array_equal(cache.slot_of[plan.units], plan.slots)
            simulator.request(units, prefetch=prefetch)
        assert cache.resident.tolist() == sorted(simulator.there)
        check(cache)
    assert counted == simulator.seen


def played(strategy, *requests):
    cache = SlotCache(UNITS, 3, strategy)
    for units in requests:
        cache.request(units)
    return cache.resident.tolist()


def test_who_makes_room():
    assert played("lru", [0], [1], [2], [0], [3]) == [0, 2, 3]
    assert played("fifo", [0], [1], [2], [0], [3]) == [1, 2, 3]
    assert played("lfu", [0], [1], [2], [0], [2], [3]) == [0, 2, 3]
    # Used once each: of equals, the least recent.
    assert played("lfu", [0], [1], [2], [3]) == [1, 2, 3]
    # Uses are those since a unit came: 0 was used twice, left, and came again as the least used.
    assert played("lfu", [0], [0], [1, 2], [1, 2], [1, 2], [3], [0], [4]) == [1, 2, 4]


def test_none_forgets_after_each_call():
    cache = SlotCache(UNITS, SLOTS, "none")
    cache.request([0, 1])
    cache.pin([1])
    assert cache.release() == 0
    assert cache.resident.tolist() == [1]
    cache.request([2, 3], prefetch=True)
    assert cache.request([1, 2]).absent.tolist() == [False, False]
    assert cache.release() == 1
    assert cache.resident.tolist() == [1]
    for strategy in STRATEGIES:
        kept = SlotCache(UNITS, SLOTS, strategy)
        kept.request([5])
        assert kept.release() == 0
        assert kept.resident.tolist() == [5]


def test_prefetching_takes_what_room_there_is():
    cache = SlotCache(UNITS, 3)
    cache.request([0, 1])
    cache.pin([0, 1])
    assert cache.request([4, 5, 6], prefetch=True).units.tolist() == [4]
    assert cache.room == 1
    cache.clear()
    assert (cache.resident.size, cache.room) == (0, 3)


def test_bad_requests_are_refused():
    cache = SlotCache(UNITS, SLOTS)
    for units, wrong in (([0, 9], 9), ([-1], -1)):
        with pytest.raises(IndexError, match=f"no unit {wrong}: the ids of the layer's units are 0 to 8"):
            cache.plan(units)
    with pytest.raises(ValueError, match="request them first"):
        cache.pin([3])
    with pytest.raises(ValueError, match="no cache strategy 'mru'; choose one of"):
        SlotCache(1, 1, "mru")
    with pytest.raises(ValueError, match="must be at least 1, not 3 and 0"):
        SlotCache(3, 0)


def test_statistics_add_up():
    one, other = CacheStatistics(calls=1, hits=3, wait_seconds=0.5), CacheStatistics(hits=1, misses=4)
    total = one + other
    assert total == CacheStatistics(calls=1, hits=4, misses=4, wait_seconds=0.5)
    assert total.hit_rate == 0.5
    assert CacheStatistics().hit_rate == 0.0
