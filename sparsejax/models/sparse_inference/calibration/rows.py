"""Samples as they come: checked, cut into pieces of one size, and a fair few of them kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

Rows = tuple[np.ndarray, np.ndarray]
"""What a predictor reads (n, d), and the inputs of the FFN itself or whatever else goes with them (n, e)."""

PIECE_SCORES = 1 << 22
"""Samples times neurons of a piece, as in memory at a time."""


def batches_of(inputs: Any) -> Iterable[Any]:
    """The batches of an array, of a pair of arrays, or of an iterable of either.

    Args:
      inputs: (*b, d); a tuple of two such; or an iterable of batches.

    Example:
      >>> len(list(batches_of(np.ones((5, 2))))), len(list(batches_of([np.ones((5, 2)), np.ones((3, 2))])))
      (1, 2)
    """
    return [inputs] if isinstance(inputs, np.ndarray | jax.Array | tuple) else inputs


def checked_batch(batch: Any, widths: tuple[int, int | None]) -> Rows:
    """The rows of a batch, as float32.

    Args:
      batch: (*b, d), or a pair (*b, d), (*b, e).
      widths: d, and e; None where batches are no pairs.

    Returns:
      (n, d) and (n, e); twice the same array where the batch is no pair.

    Raises:
      ValueError: another width, unequal counts, a pair or none where the other is needed, NaN or infinity.

    Example:
      >>> [part.shape for part in checked_batch(np.ones((2, 3, 4)), (4, None))]
      [(6, 4), (6, 4)]
    """
    pair = isinstance(batch, tuple)
    if pair != (widths[1] is not None) or (pair and len(batch) != 2):
        wanted = "arrays" if widths[1] is None else "tuples of two arrays"
        raise ValueError(f"batches must be {wanted}, not {type(batch).__name__}")
    given = batch if pair else (batch,)
    found = []
    for part, width in zip(given, widths, strict=False):
        rows = np.asarray(part, np.float32)
        if rows.ndim < 2 or rows.shape[-1] != width:
            raise ValueError(f"samples of shape {rows.shape} do not fit: (..., {width}) is needed")
        rows = rows.reshape(-1, rows.shape[-1])
        if not np.isfinite(rows).all():
            raise ValueError("samples hold NaN or infinity; leave them out or mend what made them")
        found.append(rows)
    if len(found[0]) != len(found[-1]):
        raise ValueError(f"{len(found[0])} samples do not go with {len(found[-1])}; give as many of both")
    return found[0], found[-1]


def pieces(batch: Rows, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Pieces of a batch, all of one size: the last one is filled up with zeros.

    Args:
      batch: of n rows.
      size: of a piece.

    Yields:
      (size, d), (size, e), and how many of the rows are true.

    Example:
      >>> [count for *_, count in pieces((np.ones((5, 2)), np.ones((5, 2))), 2)]
      [2, 2, 1]
    """
    first, second = batch
    for start in range(0, len(first), size):
        parts = first[start : start + size], second[start : start + size]
        count = len(parts[0])
        if count < size:
            parts = tuple(np.pad(part, ((0, size - count), (0, 0))) for part in parts)  # type: ignore[assignment]
        yield *parts, count


class Reservoir:
    """A uniform sample of rows that are seen once.

    Attributes:
      seen: rows so far.

    Example:
      >>> reservoir = Reservoir(3, seed=0)
      >>> for batch in (np.zeros((2, 1)), np.ones((8, 1))):
      ...     reservoir.add((batch, batch))
      >>> reservoir.seen, len(reservoir.rows()[0])
      (10, 3)

    Source: algorithm R (Vitter 1985).
    """

    def __init__(self, size: int, *, seed: int):
        """Nothing is kept yet.

        Args:
          size: rows to keep.
          seed: of the draws.

        Raises:
          ValueError: the size is below 1.
        """
        if size < 1:
            raise ValueError(f"at least one row must be kept, not {size}")
        self.seen, self._size = 0, size
        self._draws = np.random.default_rng(seed)
        self._kept: tuple[np.ndarray, ...] = ()

    def add(self, batch: Rows) -> None:
        """Some of these rows, each as likely as those before.

        Args:
          batch: of n rows.
        """
        count = len(batch[0])
        parts = batch[:1] if batch[1] is batch[0] else batch
        if not self._kept:
            self._kept = tuple(np.empty((0, part.shape[1]), np.float32) for part in parts)
        room = min(count, self._size - len(self._kept[0]))
        if room:
            self._kept = tuple(
                np.concatenate([kept, part[:room]]) for kept, part in zip(self._kept, parts, strict=True)
            )
        place = self._draws.integers(0, np.arange(self.seen + room, self.seen + count) + 1)
        taken = np.flatnonzero(place < self._size)
        for kept, part in zip(self._kept, parts, strict=True):
            kept[place[taken]] = part[room + taken]  # of rows that meet at a place the last one stays
        self.seen += count

    def rows(self) -> Rows:
        """Those kept.

        Raises:
          ValueError: there are none.
        """
        if not self.seen:
            raise ValueError("there are no samples")
        return self._kept[0], self._kept[-1]
