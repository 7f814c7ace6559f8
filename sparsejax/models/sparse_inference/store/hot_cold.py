"""Hot and cold neurons: how often each one is used, and which are used often enough to stay near."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RECORDS_BETWEEN = 1000
"""Records after which `NeuronCounts` classifies by itself."""


class HotColdStatistics(NamedTuple):
    """The state of a `NeuronCounts`.

    Attributes:
      num_hot: neurons called hot.
      num_cold: the others.
      total: records so far.
      hot_ratio: ``num_hot`` over all neurons.
    """

    num_hot: int
    num_cold: int
    total: int
    hot_ratio: float


def classify(counts: np.ndarray, total: int, fraction: float) -> np.ndarray:
    """Which neurons are hot: those with a count of at least ``floor(total * fraction)``.

    The fraction is one of the records, a frequency, and not a share of the neurons: as long as
    ``total * fraction`` is below 1, every neuron is hot.

    Args:
      counts: (f,) how often each neuron was used.
      total: records.
      fraction: 0 to 1.

    Returns:
      bool (f,).

    Example:
      >>> classify(np.asarray([0, 1, 5]), 10, 0.2).tolist()
      [False, False, True]

    Source: specs/sparse_inference.md section 4, NeuronCache.
    """
    return np.asarray(counts) >= math.floor(total * fraction)


class NeuronCounts:
    """Counts how often each neuron of a layer is used, and classifies neurons by it now and then.

    All neurons are cold until the first classification.

    Attributes:
      counts: int64 (f,) uses of each neuron.
      total: records so far.
      hot_mask: bool (f,) the last classification.

    Example:
      >>> counts = NeuronCounts(4, 0.5)
      >>> for ids in ([0, 1], [1], [1, 3], [9]):
      ...     _ = counts.record(ids)
      >>> counts.hot.tolist(), counts.reclassify(), counts.hot.tolist()
      ([], 1, [1])

    Source: specs/sparse_inference.md section 4, NeuronCache.
    """

    def __init__(self, neurons: int, fraction: float = 0.2, *, records_between: int = RECORDS_BETWEEN):
        """Nothing is counted yet.

        Args:
          neurons: of the layer.
          fraction: of the records, from which on a neuron is hot; `CacheConfig.hot_neuron_fraction`.
          records_between: records after which `record` classifies by itself.

        Raises:
          ValueError: no neurons, a fraction outside 0 to 1, or fewer than one record between.
        """
        if neurons < 1:
            raise ValueError(f"neurons must be at least 1, not {neurons}")
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be 0 to 1, not {fraction}")
        if records_between < 1:
            raise ValueError(f"records_between must be at least 1, not {records_between}")
        self.fraction, self.records_between = float(fraction), records_between
        self.counts = np.zeros(neurons, np.int64)
        self.hot_mask = np.zeros(neurons, bool)
        self.total = 0

    def record(self, ids: Iterable[int] | np.ndarray) -> bool:
        """Count the neurons that one call used, of one token or several.

        Args:
          ids: of neurons, repeated ones counted as often; those that the layer does not have are ignored.

        Returns:
          whether the neurons were classified anew, as after every ``records_between`` records.
        """
        ids = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64).ravel()
        ids = ids[(ids >= 0) & (ids < len(self.counts))]
        self.counts += np.bincount(ids, minlength=len(self.counts))
        self.total += 1
        if self.total % self.records_between:
            return False
        self.reclassify()
        return True

    def reclassify(self) -> int:
        """Classify by the counts so far; returns the number of hot neurons."""
        self.hot_mask = classify(self.counts, self.total, self.fraction)
        return int(self.hot_mask.sum())

    @property
    def hot(self) -> np.ndarray:
        """Ids (hot,) of the neurons called hot, ascending."""
        return np.flatnonzero(self.hot_mask)

    @property
    def cold(self) -> np.ndarray:
        """Ids (cold,) of the others, ascending."""
        return np.flatnonzero(~self.hot_mask)

    @property
    def frequency(self) -> np.ndarray:
        """Uses of each neuron (f,) per record; 0 before the first one."""
        return self.counts / max(1, self.total)

    @property
    def statistics(self) -> HotColdStatistics:
        """Numbers of hot and cold neurons and of records."""
        hot = int(self.hot_mask.sum())
        return HotColdStatistics(hot, len(self.counts) - hot, self.total, hot / len(self.counts))
