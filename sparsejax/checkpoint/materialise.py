"""Copies mapped arrays into memory that JAX can take over as it is, checking every value on the way.

A load is bound by memory traffic: one pass copies, checks for NaN, and lets checksums run beside it.
`jnp.asarray` would copy a second time at a quarter of the speed; `jax.device_put` of a 64-byte aligned
buffer does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsejax.checkpoint.errors import NonFiniteError

_ALIGNMENT = 64
_TASK_BYTES = 32 << 20
_CHUNK_BYTES = 1 << 20
_BLOCK = 256


def materialise(
    arrays: Mapping[str, np.ndarray], checks: Sequence[Callable[[], None]] = (), *, finite: bool = True
) -> dict[str, np.ndarray]:
    """Fresh, contiguous, 64-byte aligned copies of arrays, made by a few threads.

    Args:
      arrays: by name; any strides, any dtype of NumPy or ml_dtypes.
      checks: run beside the copies, such as checksums of the file; what they raise is raised here.
      finite: refuse NaN and infinity in floating arrays.

    Returns:
      the copies by name.

    Raises:
      NonFiniteError: names the array and how many of its values are not finite.

    Example:
      >>> materialise({"w": np.arange(4.0)[::2]})["w"]
      array([0., 2.])
    """
    copies = {name: aligned_empty(array.shape, array.dtype) for name, array in arrays.items()}
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        running = [pool.submit(check) for check in checks]
        for name, source in arrays.items():
            running += [
                pool.submit(_copy_part, name, source, copies[name], part, finite)
                for part in _parts(source, copies[name])
            ]
        for task in running:
            task.result()
    return copies


def aligned_empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array whose data starts at a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; integers always are finite."""
    if array.dtype.kind not in "fcV" or not array.size:
        return True
    with np.errstate(all="ignore"):
        # A sum is finite only if every term is, and four times faster than a look at each.
        if array.dtype.itemsize >= 4 and np.isfinite(np.add.reduce(array, axis=None)):
            return True
        return bool(np.isfinite(array).all())


def _parts(source: np.ndarray, copy: np.ndarray) -> Iterator[slice | None]:
    """Slices along the first axis worth a task each; None is the whole."""
    if not source.ndim or source.nbytes <= _TASK_BYTES:
        yield None
        return
    rows = max(1, len(copy) * _TASK_BYTES // source.nbytes)
    rows = max(_BLOCK, rows) if not source.flags.c_contiguous else rows
    for start in range(0, len(copy), rows):
        yield slice(start, start + rows)


def _copy_part(name: str, source: np.ndarray, copy: np.ndarray, part: slice | None, finite: bool) -> None:
    whole = source
    if part is not None:
        source, copy = source[part], copy[part]
    for chunk_from, chunk_to in _chunks(source, copy):
        np.copyto(chunk_to, chunk_from)
        if finite and not all_finite(chunk_to):
            raise _non_finite(name, whole)


def _chunks(source: np.ndarray, copy: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that fit the cache: lines of contiguous arrays, square blocks of transposed ones."""
    if source.flags.c_contiguous:
        source, copy = source.reshape(-1), copy.reshape(-1)
        step = max(1, _CHUNK_BYTES // source.dtype.itemsize)
        for start in range(0, source.size, step):
            yield source[start : start + step], copy[start : start + step]
    elif source.ndim == 2:
        for row in range(0, source.shape[0], _BLOCK):
            for column in range(0, source.shape[1], _BLOCK):
                block = np.s_[row : row + _BLOCK, column : column + _BLOCK]
                yield source[block], copy[block]
    else:
        yield source, copy


def _non_finite(name: str, array: np.ndarray) -> NonFiniteError:
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    return NonFiniteError(
        f"{bad} of {array.size} values of {name!r} are NaN or infinite; was the training diverging?"
    )
