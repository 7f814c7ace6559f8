"""What a cache of neurons was asked for, and what it had to move."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sparsejax.models.sparse_inference.store.cache import Plan, SlotCache


@dataclass
class CacheStatistics:
    """Counts of a layer, or of all of them. Units are neurons, or blocks of them.

    Attributes:
      calls: requests.
      hits: units that were there when they were asked for, hot and prefetched ones among them.
      hot_hits: those that were pinned.
      misses: units that the caller had to wait for.
      evictions: units that made room for others.
      bytes_moved: from host memory or file to the device, for whatever reason.
      prefetched: units that were moved ahead of use.
      prefetch_useful: of them, those that were asked for while they were there.
      prefetch_wasted: of them, those that made room before they were asked for.
      prefetch_late: calls whose prefetching had not begun when they came.
      wait_seconds: that callers spent on loading what they missed.
    """

    calls: int = 0
    hits: int = 0
    hot_hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes_moved: int = 0
    prefetched: int = 0
    prefetch_useful: int = 0
    prefetch_wasted: int = 0
    prefetch_late: int = 0
    wait_seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Hits per unit asked for; 0 before the first one.

        Example:
          >>> CacheStatistics(hits=3, misses=1).hit_rate
          0.75
        """
        return self.hits / max(1, self.hits + self.misses)

    def __add__(self, other: CacheStatistics) -> CacheStatistics:
        return CacheStatistics(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(CacheStatistics))
        )

    def count(self, cache: SlotCache, plan: Plan) -> None:
        """Count a plan that is about to be carried out.

        Args:
          cache: that made the plan, before anything is changed.
          plan: of a request, or of prefetching.
        """
        missing = int(plan.absent.sum())
        self.evictions += len(plan.victims)
        self.prefetch_wasted += int(np.count_nonzero(cache.fresh[plan.victims]))
        if plan.prefetch:
            self.prefetched += missing
            return
        here = plan.slots[~plan.absent]
        self.calls += 1
        self.hits += len(here)
        self.hot_hits += int(np.count_nonzero(cache.pinned[here]))
        self.misses += missing
        self.prefetch_useful += int(np.count_nonzero(cache.fresh[here]))
