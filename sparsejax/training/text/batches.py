"""Batches of windows through grain: what is in one depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.processes import from_own_rows, own_rows
from sparsejax.training.text.packing import Window

_AHEAD = 4


class Source(Protocol):
    """Rows by number, each a dict of arrays of equal shapes."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, number: int) -> Window:
        """A row."""
        ...


def training_batches(
    windows: Source,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    stop: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Iterator[Any]:
    """Shuffled batches for the steps from ``start`` to ``stop``, made ahead by threads.

    Every epoch has an order of its own; a batch may hold the end of one and the start of the next. A run that
    is resumed asks for the steps that are left and gets what it would have got. With several processes each
    one makes the rows of its own devices only, and all together make the batch that one process would.

    Args:
      windows: to draw from.
      batch_size: rows of a batch, over all processes.
      seed: of the orders.
      start: first step.
      stop: step after the last.
      sharding: where the arrays go; the default device if not given.

    Returns:
      batches of the windows' entries, such as ``inputs``, ``targets`` and ``segment_ids``, each (b, t) int32,
      on the devices.

    Raises:
      ValueError: none of the devices is this process's.
      ModuleNotFoundError: grain is missing (extra ``text``).
    """
    import grain

    held = slice(0, batch_size) if sharding is None else own_rows(sharding, batch_size)
    dataset = grain.MapDataset.source(windows).seed(seed).shuffle().repeat()
    own = grain.MapDataset.source(_Rows(dataset, batch_size, held, stop)).batch(held.stop - held.start)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    for batch in own.slice(slice(start, stop)).to_iter_dataset(options):
        yield _placed(batch, sharding, batch_size)


def whole_batches(
    windows: Source,
    *,
    batch_size: int,
    blank: Window | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> Iterator[Any]:
    """All windows once, in order; rows of no target fill the last batch, so that all have one shape.

    Args:
      windows: such as those of a held-out text.
      batch_size: rows of a batch.
      blank: row that fills up; one whose ``targets`` do not count if not given.
      sharding: where the arrays go; the default device if not given.
    """
    held = slice(0, batch_size) if sharding is None else own_rows(sharding, batch_size)
    for start in range(0, len(windows), batch_size):
        numbers = range(start + held.start, start + held.stop)
        filling = _empty(windows[start]) if blank is None else blank
        rows = [windows[number] if number < len(windows) else filling for number in numbers]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        yield _placed(batch, sharding, batch_size)


class _Rows:
    """Rows of one process, batch after batch, from those of all."""

    def __init__(self, dataset: Any, batch_size: int, held: slice, stop: int):
        self._dataset, self._batch_size, self._first, self._stop = dataset, batch_size, held.start, stop
        self._share = held.stop - held.start

    def __len__(self) -> int:
        length: int = self._stop * self._share
        return length

    def __getitem__(self, number: int) -> Any:
        batch, row = divmod(number, self._share)
        return self._dataset[batch * self._batch_size + self._first + row]


def _empty(window: Window) -> Window:
    return {**window, "targets": np.full_like(window["targets"], IGNORED)}


def _placed(batch: Window, sharding: jax.sharding.Sharding | None, rows: int) -> Any:
    return jax.device_put(batch) if sharding is None else from_own_rows(sharding, rows, batch)
