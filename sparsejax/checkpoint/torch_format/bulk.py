"""Checksums of many storages at once: parts of the memory map, summed in parallel."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from sparsejax.checkpoint.torch_format import crc32
from sparsejax.checkpoint.torch_format.storages import CHUNK_BYTES, Storage, checksum_error

INLINE_BYTES = 1 << 20  # below it starting threads costs more than it saves

Task = Callable[[], None]


def verify(storages: Iterable[Storage]) -> None:
    """Compares storages with their checksums, each at most once.

    Raises:
      CorruptFileError: one does not match; its record is named.
    """
    unique = {id(storage): storage for storage in storages if storage.crc is not None}
    jobs = [_StorageJob(storage) for storage in unique.values() if not storage.verified]
    tasks = [task for job in jobs for task in job.tasks()]
    amount = sum(job.storage.nbytes for job in jobs)
    workers = 1 if amount < INLINE_BYTES else max(2, min(8, len(tasks), _cores()))
    if workers == 1:
        _work(tasks, itertools.count())
    else:
        _share(tasks, workers)
    for job in jobs:
        job.finish()


class _StorageJob:
    """The checksum of one storage, cut into tasks."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.sums: list[tuple[int, int]] = []

    def tasks(self) -> list[Task]:
        size = self.storage.entry_nbytes
        if max(size, self.storage.nbytes) <= CHUNK_BYTES:
            return [self.storage.verify]
        starts = range(0, size, CHUNK_BYTES)
        self.sums = [(0, 0)] * len(starts)
        return [self._part(slot, start, min(start + CHUNK_BYTES, size)) for slot, start in enumerate(starts)]

    def _part(self, slot: int, start: int, stop: int) -> Task:
        def run() -> None:
            source = self.storage.raw(stop)[start:]
            self.sums[slot] = (zlib.crc32(source.data), source.size)
            self.storage.release(start, stop - start)

        return run

    def finish(self) -> None:
        if not self.sums:
            return
        total = 0
        for part, nbytes in self.sums:
            total = crc32.combine(total, part, nbytes)
        if total != self.storage.crc:
            raise checksum_error(self.storage.where, f"data/{self.storage.key}")
        self.storage.verified = True


def _share(tasks: list[Task], workers: int) -> None:
    turn = itertools.count()
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(_work, tasks, turn) for _ in range(workers)]:
            done.result()


def _work(tasks: list[Task], turn: itertools.count[int]) -> None:
    while (index := next(turn)) < len(tasks):
        tasks[index]()


def _cores() -> int:
    return os.cpu_count() or 1
