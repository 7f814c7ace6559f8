"""Reads many tensors at once: parallel copies out of the memory map, checksums on the way."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsejax.checkpoint.torch_format import crc32
from sparsejax.checkpoint.torch_format.storages import (
    CHUNK_BYTES,
    Storage,
    TensorRef,
    aligned_empty,
    checksum_error,
    swap_in_place,
    word_size,
)

INLINE_BYTES = 1 << 20  # below it starting threads costs more than it saves

Task = Callable[[], None]


def read_arrays(refs: Sequence[TensorRef], *, verify: bool = True) -> list[np.ndarray]:
    """Copies tensors out of their files.

    Args:
      refs: tensors of one file or several.
      verify: compare each storage with its checksum, once per opened file.

    Returns:
      for each tensor a fresh, writable, C-contiguous array that starts at a multiple of 64 bytes; the
      same tensor twice (a tied weight) is one array twice.

    Raises:
      CorruptFileError: a storage does not match its checksum; the arrays are dropped.

    Example:
      >>> import numpy as np, os, tempfile
      >>> from sparsejax.checkpoint import torch_file
      >>> path = os.path.join(tempfile.mkdtemp(), "w.pt")
      >>> torch_file.write({"w": np.arange(3.0)}, path)
      >>> read_arrays([torch_file.open_file(path).tree["w"]])
      [array([0., 1., 2.])]
    """
    arrays: dict[tuple[object, ...], np.ndarray] = {}
    jobs: dict[int, _StorageJob] = {}
    results = []
    for ref in refs:
        key = (id(ref.storage), *ref.identity)
        if key not in arrays:
            arrays[key] = aligned_empty(ref.shape, ref.dtype)
            jobs.setdefault(id(ref.storage), _StorageJob(ref.storage)).add(ref, arrays[key])
        results.append(arrays[key])
    _run(list(jobs.values()), verify)
    return results


def verify(storages: Iterable[Storage]) -> None:
    """Compares storages with their checksums, each at most once.

    Raises:
      CorruptFileError: one does not match; its record is named.
    """
    unique = {id(storage): storage for storage in storages if storage.crc is not None}
    _run([_StorageJob(storage) for storage in unique.values()], True)


class _StorageJob:
    """The copies wanted from one storage and its checksum, cut into tasks."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.targets: list[tuple[TensorRef, np.ndarray]] = []
        self.sums: list[tuple[int, int]] = []

    def add(self, ref: TensorRef, target: np.ndarray) -> None:
        if target.size:
            self.targets.append((ref, target))

    def tasks(self, verify_sums: bool) -> list[Task]:
        checked = verify_sums and self.storage.crc is not None and not self.storage.verified
        if max(self.storage.entry_nbytes, self.storage.nbytes) <= CHUNK_BYTES:
            fillings = [_filling(ref, target) for ref, target in self.targets]
            return [self.storage.verify, *fillings] if checked else fillings
        plain = [pair for pair in self.targets if _is_plain(pair[0])]
        made: list[Task] = [_filling(ref, target) for ref, target in self.targets if not _is_plain(ref)]
        carrier = plain.pop(0) if checked and plain else None
        for ref, target in plain:
            made += self._parts(ref.offset, ref.offset + ref.nbytes, target, summed=False)
        return made + (self._summing(carrier) if checked else [])

    def _summing(self, carrier: tuple[TensorRef, np.ndarray] | None) -> list[Task]:
        """Checksum tasks over the whole record, which copy the carrier's bytes on the way."""
        end = self.storage.entry_nbytes
        if carrier is None:
            return self._parts(0, end, None, summed=True)
        ref, target = carrier
        first, last = ref.offset, ref.offset + ref.nbytes
        before = self._parts(0, first, None, summed=True)
        return (
            before + self._parts(first, last, target, summed=True) + self._parts(last, end, None, summed=True)
        )

    def _parts(self, low: int, high: int, target: np.ndarray | None, summed: bool) -> list[Task]:
        """Tasks that copy a range of the record to ``target`` and, if wanted, sum it."""
        copied = None if target is None else target.reshape(-1).view(np.uint8)
        made: list[Task] = []
        for start in range(low, high, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, high)
            slot = len(self.sums) if summed else None
            if summed:
                self.sums.append((0, 0))
            made.append(
                self._part(start, stop, None if copied is None else copied[start - low : stop - low], slot)
            )
        return made

    def _part(self, start: int, stop: int, target: np.ndarray | None, slot: int | None) -> Task:
        def run() -> None:
            source = self.storage.raw(stop)[start:]
            if target is not None:
                target[...] = source
            if slot is not None:
                self.sums[slot] = (zlib.crc32((source if target is None else target).data), source.size)
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


def _is_plain(ref: TensorRef) -> bool:
    """Whether the array's bytes are a run of the storage's."""
    return ref.is_contiguous and not (ref.storage.swapped(ref.dtype) or ref.conjugated or ref.negated)


def _filling(ref: TensorRef, target: np.ndarray) -> Task:
    def run() -> None:
        target[...] = ref.strided(ref.storage.raw())
        if ref.storage.swapped(ref.dtype):
            swap_in_place(target.reshape(-1).view(np.uint8), word_size(ref.dtype))
        if ref.conjugated:
            np.conjugate(target, out=target)
        if ref.negated:
            np.negative(target, out=target)

    return run


def _run(jobs: list[_StorageJob], verify_sums: bool) -> None:
    tasks = [task for job in jobs for task in job.tasks(verify_sums)]
    amount = sum(job.storage.nbytes for job in jobs)
    workers = 1 if amount < INLINE_BYTES else max(2, min(8, len(tasks), _cores()))
    if workers == 1:
        _work(tasks, itertools.count())
    else:
        _share(tasks, workers)
    for job in jobs:
        job.finish()


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
