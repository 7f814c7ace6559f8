"""Sorts structures into a few buckets, so that padding each to its bucket's largest wastes least."""

from __future__ import annotations

import numpy as np

_DISTINCT = 512  # sizes that are told apart; more are looked at in groups of neighbours


def size_buckets(sizes: np.ndarray, count: int, least: int = 1) -> list[np.ndarray]:
    """Cut structures, sorted by size, where the padding is least.

    Args:
      sizes: (s,) atoms of each structure.
      count: buckets at most; fewer where there are fewer different sizes, or too few structures.
      least: structures that a bucket holds at least, unless it is the only one.

    Returns:
      numbers of the structures of each bucket, smallest first; within one by size, then number.

    Example:
      >>> [bucket.tolist() for bucket in size_buckets(np.array([3, 40, 4, 41, 3, 90]), 3)]
      [[0, 4, 2], [1, 3], [5]]
      >>> [bucket.tolist() for bucket in size_buckets(np.array([3, 40, 4, 41, 3, 90]), 3, least=3)]
      [[0, 4, 2], [1, 3, 5]]
    """
    order = np.argsort(sizes, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(sizes[order]) > 0, True)) + 1
    if len(ends) > _DISTINCT:
        ends = ends[np.linspace(0, len(ends) - 1, _DISTINCT).round().astype(int)]
    largest = sizes[order][ends - 1].astype(np.float64)
    for wanted in range(min(count, len(ends)), 1, -1):
        if cuts := _cuts(largest, ends, wanted, least):
            return np.split(order, ends[cuts])
    return [order]


def _cuts(largest: np.ndarray, ends: np.ndarray, count: int, least: int) -> list[int]:
    """The last group of every bucket but the last, by dynamic programming; empty where it cannot be done.

    Args:
      largest: (k,) size that the structures up to each group's end are padded to.
      ends: (k,) structures up to each group's end.
      count: buckets.
      least: structures of a bucket.
    """
    cost = np.where(ends >= least, largest * ends, np.inf)  # of one bucket that ends at each group
    numbers = ends[None, :] - ends[:, None]  # structures after group i up to group j
    added = np.where(numbers >= least, largest[None, :] * numbers, np.inf)
    choices = []
    for _ in range(count - 1):
        table = cost[:, None] + added
        choices.append(np.argmin(table, axis=0))
        cost = np.min(table, axis=0)
    if not np.isfinite(cost[-1]):
        return []
    cuts, last = [], len(ends) - 1
    for choice in reversed(choices):
        last = int(choice[last])
        cuts.append(last)
    return cuts[::-1]
