"""Batches of windows through grain: what is in one depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np

from sparsejax.ops.token_ids import IGNORED
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
    one makes its own rows only.

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
      ValueError: the rows do not divide among the processes.
      ModuleNotFoundError: grain is missing (extra ``text``).
    """
    import grain

    rows, rest = divmod(batch_size, jax.process_count())
    if rest:
        raise ValueError(f"{batch_size} rows of a batch do not divide among {jax.process_count()} processes")
    dataset = grain.MapDataset.source(windows).seed(seed).shuffle().repeat()
    own = dataset[jax.process_index() :: jax.process_count()].batch(rows)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    for batch in own.slice(slice(start, stop)).to_iter_dataset(options):
        yield _placed(batch, sharding)


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
    for start in range(0, len(windows), batch_size):
        rows = [windows[number] for number in range(start, min(start + batch_size, len(windows)))]
        rows += [_empty(rows[0]) if blank is None else blank] * (batch_size - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        share = batch_size // jax.process_count()
        first = jax.process_index() * share
        yield _placed({name: part[first : first + share] for name, part in batch.items()}, sharding)


def _empty(window: Window) -> Window:
    return {**window, "targets": np.full_like(window["targets"], IGNORED)}


def _placed(batch: Window, sharding: jax.sharding.Sharding | None) -> Any:
    if sharding is None:
        return jax.device_put(batch)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), batch)
