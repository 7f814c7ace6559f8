"""Which neurons are in which slots of a device buffer, and which make room for others.

Pure bookkeeping on NumPy arrays: what is moved, and when, is the store's matter. The cache holds units: a
neuron, or a block of neurons that are stored together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.models.sparse_inference.config import CacheStrategy, check_strategy


class Plan(NamedTuple):
    """What a request needs. Nothing is changed by making one.

    Attributes:
      units: (k,) asked for, ascending.
      slots: int32 (k,) where each of them is or will be.
      absent: bool (k,) those to be loaded.
      victims: slots whose units make room.
      prefetch: whether it is asked ahead of use.
    """

    units: np.ndarray
    slots: np.ndarray
    absent: np.ndarray
    victims: np.ndarray
    prefetch: bool


class SlotCache:
    """Slots of a layer, each empty or with one unit in it.

    A request first touches the units that are there, in ascending order, then brings those that are
    absent, in ascending order: into empty slots, the lowest first, then into those of units that make
    room. A unit that is asked for never makes room for another of the same request, and pinned ones never
    do. Uses are counted while a unit stays, prefetching is no use.

    Attributes:
      units: there are.
      slots: there are.
      strategy: who makes room.
      slot_of: int32 (units,) slot of each unit, -1 for absent ones.
      unit_in: int32 (slots,) unit in each slot, -1 in empty ones.
      pinned: bool (slots,) units that stay.
      fresh: bool (slots,) units that came ahead of use and are not used yet.

    Example:
      >>> cache = SlotCache(units=9, slots=2)
      >>> for units in ([1], [2], [1], [3]):
      ...     plan = cache.request(units)
      >>> plan.absent.tolist(), cache.resident.tolist()
      ([True], [1, 3])
    """

    def __init__(self, units: int, slots: int, strategy: CacheStrategy = "lru"):
        """All slots are empty.

        Args:
          units: of the layer.
          slots: of its buffer.
          strategy: "lru", "lfu", "fifo" or "none".

        Raises:
          ValueError: an unknown strategy, or no units or slots.
        """
        check_strategy(strategy)
        if units < 1 or slots < 1:
            raise ValueError(f"units and slots must be at least 1, not {units} and {slots}")
        self.units, self.slots, self.strategy = units, slots, strategy
        self.slot_of = np.full(units, -1, np.int32)
        self.unit_in = np.full(slots, -1, np.int32)
        self.pinned = np.zeros(slots, bool)
        self.fresh = np.zeros(slots, bool)
        self._last_use = np.zeros(slots, np.int64)
        self._uses = np.zeros(slots, np.int64)
        self._arrival = np.zeros(slots, np.int64)
        self._clock = 0

    @property
    def resident(self) -> np.ndarray:
        """The units that are there, ascending."""
        return np.flatnonzero(self.slot_of >= 0)

    @property
    def room(self) -> int:
        """Slots that are not pinned."""
        return int(self.slots - self.pinned.sum())

    def plan(self, units: np.ndarray | list[int], *, prefetch: bool = False) -> Plan:
        """Where the units are or will be.

        Args:
          units: distinct ids; any order.
          prefetch: ask ahead of use; units for which there is no room are then left out.

        Raises:
          IndexError: an id that the layer does not have.
          ValueError: more units than fit beside the pinned ones.
        """
        units = np.unique(np.asarray(units, np.int64))
        if units.size and (units[0] < 0 or units[-1] >= self.units):
            wrong = units[0] if units[0] < 0 else units[-1]
            raise IndexError(f"no unit {wrong}: the ids of the layer's units are 0 to {self.units - 1}")
        slots = self.slot_of[units]
        absent = slots < 0
        kept = self.pinned.copy()
        kept[slots[~absent]] = True
        empty = np.flatnonzero(self.unit_in < 0)
        others = self._leaving(np.flatnonzero((self.unit_in >= 0) & ~kept))
        missing, fitting = int(absent.sum()), len(empty) + len(others)
        if missing > fitting:
            if not prefetch:
                pinned = int(self.pinned.sum())
                raise ValueError(
                    f"{len(units)} units do not fit into {self.slots} slots, of which {pinned} are pinned; "
                    "ask for fewer at once or give a larger budget"
                )
            left_out = np.flatnonzero(absent)[fitting:]
            units, slots, absent = (np.delete(each, left_out) for each in (units, slots, absent))
            missing = fitting
        victims = others[: max(0, missing - len(empty))]
        slots[absent] = np.concatenate([empty[:missing], victims])
        return Plan(units, slots, absent, victims, prefetch)

    def evict(self, plan: Plan) -> None:
        """Empty the slots of a plan's victims."""
        self.slot_of[self.unit_in[plan.victims]] = -1
        self.unit_in[plan.victims] = -1
        self.fresh[plan.victims] = False

    def settle(self, plan: Plan) -> None:
        """Touch what was there, and put what was absent into its slots; victims are gone by now."""
        here, places = plan.slots[~plan.absent], plan.slots[plan.absent]
        if not plan.prefetch:
            self._last_use[here] = self._ticks(len(here))
            self._uses[here] += 1
            self.fresh[here] = False
        ticks = self._ticks(len(places))
        self.unit_in[places] = plan.units[plan.absent]
        self.slot_of[plan.units[plan.absent]] = places
        self._last_use[places] = self._arrival[places] = ticks
        self._uses[places] = 0 if plan.prefetch else 1
        self.fresh[places] = plan.prefetch

    def request(self, units: np.ndarray | list[int], *, prefetch: bool = False) -> Plan:
        """`plan`, `evict` and `settle` in one."""
        plan = self.plan(units, prefetch=prefetch)
        self.evict(plan)
        self.settle(plan)
        return plan

    def release(self) -> int:
        """After a call, with "none": forget all units but the pinned; returns how many came unused."""
        if self.strategy != "none":
            return 0
        unused = int(self.fresh.sum())
        leaving = (self.unit_in >= 0) & ~self.pinned
        self.slot_of[self.unit_in[leaving]] = -1
        self.unit_in[leaving] = -1
        self.fresh[:] = False
        return unused

    def pin(self, units: np.ndarray | list[int]) -> None:
        """These units, all of them resident, and no others are pinned; they count as used.

        Raises:
          ValueError: one of them is absent.
        """
        slots = self.slot_of[np.asarray(units, np.int64)]
        if (slots < 0).any():
            raise ValueError("only units that are there can be pinned; request them first")
        self.pinned[:] = False
        self.pinned[slots] = True
        self.fresh[slots] = False

    def clear(self) -> None:
        """Empty and unpin every slot."""
        self.slot_of[:] = self.unit_in[:] = -1
        self.pinned[:] = self.fresh[:] = False

    def _leaving(self, slots: np.ndarray) -> np.ndarray:
        """Occupied slots in the order in which their units make room."""
        keys: tuple[np.ndarray, ...]
        if self.strategy == "lru":
            keys = (self._last_use[slots],)
        elif self.strategy == "lfu":
            keys = (self._last_use[slots], self._uses[slots])
        else:
            keys = (self._arrival[slots],)
        return slots[np.lexsort(keys)]

    def _ticks(self, count: int) -> np.ndarray:
        ticks = self._clock + 1 + np.arange(count)
        self._clock += count
        return ticks
