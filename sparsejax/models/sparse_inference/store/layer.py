"""One layer of a store: its slots on the device, and what is known about them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import CacheStrategy
from sparsejax.models.sparse_inference.store.cache import Plan, SlotCache
from sparsejax.models.sparse_inference.store.cache_statistics import CacheStatistics
from sparsejax.models.sparse_inference.store.hot_cold import NeuronCounts
from sparsejax.models.sparse_inference.store.memory import UnitSource
from sparsejax.models.sparse_inference.store.slots import Transit, empty_slots, pieces

Place: TypeAlias = jax.Device | jax.sharding.Sharding


class Road(NamedTuple):
    """How units come to the device; all layers share it.

    Attributes:
      source: where they are read.
      transit: what limits how many are on their way.
      piece: most units sent at once.
      device: where they go.
    """

    source: UnitSource
    transit: Transit
    piece: int
    device: Place


class StoreLayer:
    """Slots of a layer. Whoever calls a method holds the lock.

    Attributes:
      number: of the layer.
      layout: of its units.
      cache: which units are in which slots.
      counts: of their use.
      statistics: of the requests.
      lock: of all of these.
      buffers: by plane, (slots, *shape), on the device.
      bias: of the output, there too, or None.
      leased: whether somebody has the buffers in hand.
      failure: what went wrong ahead of use, and nobody was told.
    """

    def __init__(self, number: int, slots: int, strategy: CacheStrategy, counts: NeuronCounts, road: Road):
        """Empty slots.

        Args:
          number: of the layer.
          slots: units that fit.
          strategy: of the cache.
          counts: of the units.
          road: to the device.
        """
        self.number, self.layout, self.road = number, road.source.layouts[number], road
        self.cache, self.counts = SlotCache(self.layout.units, slots, strategy), counts
        self.statistics, self.lock = CacheStatistics(), threading.RLock()
        bias = road.source.biases[number]
        self.bias = None if bias is None else jax.device_put(jnp.array(bias), road.device)
        self.leased = False
        self.failure: Exception | None = None
        self.buffers = empty_slots(self.layout, slots, road.device)

    @property
    def nbytes(self) -> int:
        """Of the arrays on the device."""
        return sum(buffer.nbytes for buffer in (*self.buffers, *([] if self.bias is None else [self.bias])))

    def fetch(self, units: np.ndarray | Sequence[int]) -> Plan:
        """See to it that the units are there, for whoever waits for them."""
        plan = self._plan(units)
        self.statistics.count(self.cache, plan)
        start = time.perf_counter()
        self.carry_out(plan)
        if plan.absent.any():
            self.statistics.wait_seconds += time.perf_counter() - start
        return plan

    def fetch_ahead(self, units: np.ndarray | Sequence[int]) -> None:
        """Bring what fits of the units that are not there."""
        plan = self._plan(units, prefetch=True)
        if plan.absent.any():
            self.statistics.count(self.cache, plan)
            self.carry_out(plan)

    def carry_out(self, plan: Plan) -> None:
        """Empty the slots of those that make room, fill them, and only then say so.

        Interrupted anywhere, a slot is empty at worst.
        """
        self.cache.evict(plan)
        units, places, start = plan.units[plan.absent], plan.slots[plan.absent], 0
        for count, size in pieces(len(units), self.road.piece):
            rows = [np.empty((size, *plane.shape), jnp.dtype(plane.dtype)) for plane in self.layout.planes]
            mine = slice(start, start + count)
            self.road.source.read(self.number, units[mine], [row[:count] for row in rows])
            self._send(places[mine], rows)
            self.statistics.bytes_moved += sum(row.nbytes for row in rows)
            start += count
        self.cache.settle(plan)

    def compile_sizes(self, sizes: Sequence[int]) -> None:
        """Compile the writing of so many rows at once, by rows for which there is no slot."""
        self._renew()
        for size in sizes:
            rows = [np.zeros((size, *plane.shape), jnp.dtype(plane.dtype)) for plane in self.layout.planes]
            self._send(np.zeros(0, np.int32), rows)

    def keep_hot(self, most: int, threshold: float) -> int:
        """Pin the units that are used often, bringing them where needed.

        Units become hot that ``threshold`` of the calls use, and stay so while the published classification
        calls them hot. A quarter of the slots is left to the others.

        Args:
          most: units.
          threshold: share of the calls, 0 to 1.

        Returns:
          the number of hot units.
        """
        self.counts.reclassify()
        pinned = self.cache.unit_in[self.cache.pinned]
        wanted = self.counts.frequency >= threshold
        wanted[pinned] |= self.counts.hot_mask[pinned]
        room = self.cache.slots if self.cache.slots == self.layout.units else self.cache.slots * 3 // 4
        ids = np.flatnonzero(wanted & (self.counts.counts > 0))
        ids = ids[np.argsort(-self.counts.counts[ids], kind="stable")][: min(most, room)]
        self.pin(ids)
        return len(ids)

    def pin(self, units: np.ndarray) -> None:
        """Bring units, which no statistics count, and pin them and no others."""
        self.cache.pin([])
        self.carry_out(self._plan(units, prefetch=True))
        self.cache.pin(units)

    def drop(self) -> None:
        """Give back the device's memory."""
        self.buffers, self.bias = (), None

    def _plan(self, units: np.ndarray | Sequence[int], *, prefetch: bool = False) -> Plan:
        self._renew()
        return self.cache.plan(np.asarray(units), prefetch=prefetch)

    def _renew(self) -> None:
        """Empty buffers where writing was interrupted: it takes the old ones, and nothing came back."""
        if any(buffer.is_deleted() for buffer in self.buffers):
            self.cache.clear()
            self.buffers = empty_slots(self.layout, self.cache.slots, self.road.device)

    def _send(self, places: np.ndarray, rows: list[np.ndarray]) -> None:
        beyond = self.cache.slots + np.arange(len(rows[0]) - len(places))
        targets = np.concatenate([places, beyond])
        self.buffers = self.road.transit.send(self.buffers, targets, rows, self.road.device)
