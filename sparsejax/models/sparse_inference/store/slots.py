"""Slots of units on the device, written in place, and the rows on their way to them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.sparse_inference.store.units import UnitLayout

_FEWEST = 8
_PADDING = 0.25


@partial(jax.jit, donate_argnums=0)
def put_units(
    buffers: tuple[Array, ...], places: Array, rows: tuple[Array, ...]
) -> tuple[tuple[Array, ...], Array]:
    """The buffers with rows in some slots, written in place, and a number that is there when they are.

    Args:
      buffers: by plane, (slots, *shape); given up.
      places: int32 (m,) distinct slots; rows of places beyond the last slot are left out.
      rows: by plane, (m, *shape).
    """
    written = tuple(
        buffer.at[places].set(row, mode="drop", unique_indices=True)
        for buffer, row in zip(buffers, rows, strict=True)
    )
    return written, places.sum()


class Transit:
    """Rows on their way to slots: no more bytes of them at once than allowed, in all threads together.

    Attributes:
      most_bytes: allowed.
      peak_bytes: the most there were.
    """

    def __init__(self, most_bytes: int):
        """Nothing is on its way.

        Args:
          most_bytes: that a piece fits into.
        """
        self.most_bytes, self.peak_bytes = most_bytes, 0
        self._bytes, self._pending = 0, deque[tuple[Array, int]]()
        self._lock = threading.Lock()

    def send(
        self,
        buffers: tuple[Array, ...],
        places: np.ndarray,
        rows: Sequence[np.ndarray],
        device: jax.Device | jax.sharding.Sharding,
    ) -> tuple[Array, ...]:
        """Copy rows to the device and write them into slots; returns before they are there.

        Args:
          buffers: as of `put_units`.
          places: as of `put_units`.
          rows: in host memory, not to be written to any more.
          device: of the buffers.
        """
        nbytes = sum(row.nbytes for row in rows)
        with self._lock:
            while self._pending and (
                self._bytes + nbytes > self.most_bytes or _is_there(self._pending[0][0])
            ):
                arrived, gone = self._pending.popleft()
                arrived.block_until_ready()
                self._bytes -= gone
            self._bytes += nbytes
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            moved = tuple(jax.device_put([np.asarray(places, np.int32), *rows], device))
            written, arrived = put_units(buffers, moved[0], moved[1:])
            self._pending.append((arrived, nbytes))
        return written

    def wait(self) -> None:
        """Until all rows have arrived."""
        with self._lock:
            while self._pending:
                arrived, gone = self._pending.popleft()
                arrived.block_until_ready()
                self._bytes -= gone


def _is_there(array: Array) -> bool:
    return array.is_ready()  # type: ignore[attr-defined]


def empty_slots(
    layout: UnitLayout, slots: int, device: jax.Device | jax.sharding.Sharding
) -> tuple[Array, ...]:
    """Buffers of zeros.

    Args:
      layout: of a unit.
      slots: units that fit.
      device: for them.
    """
    return tuple(
        jnp.zeros((slots, *plane.shape), jnp.dtype(plane.dtype), device=device) for plane in layout.planes
    )


def pieces(count: int, most: int) -> list[tuple[int, int]]:
    """How so many rows are sent: (rows, size) of each piece, few different sizes, little padding.

    Args:
      count: rows.
      most: of a piece, a power of two.

    Example:
      >>> pieces(100, 64), pieces(7, 64), pieces(13, 64)
      ([(64, 64), (32, 32), (4, 8)], [(7, 8)], [(13, 16)])
    """
    found = []
    while count:
        above = min(most, max(min(_FEWEST, most), 1 << (count - 1).bit_length()))
        if above > _FEWEST and above - count > _PADDING * count:
            above = 1 << (count.bit_length() - 1)
        taken = min(count, above)
        found.append((taken, above))
        count -= taken
    return found


def piece_sizes(most: int) -> list[int]:
    """All sizes that `pieces` gives.

    Example:
      >>> piece_sizes(64)
      [8, 16, 32, 64]
    """
    least = min(_FEWEST, most)
    return [least << step for step in range((most // least).bit_length())]
