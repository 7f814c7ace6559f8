"""Copies mapped arrays into memory that JAX can take over as it is, checking every value on the way.

A load is bound by memory traffic: one pass copies, checks for NaN, and lets checksums run beside it.
`jnp.asarray` would copy a second time at a quarter of the speed; `jax.device_put` of a 64-byte aligned
buffer does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError, NonFiniteError
from sparsejax.checkpoint.torch_format.storages import aligned_empty

_ALIGNMENT = 64
_TASK_BYTES = 32 << 20
_CHUNK_BYTES = 1 << 20
_BLOCK = 256


def materialise(
    arrays: Mapping[str, np.ndarray],
    checks: Sequence[Callable[[], None]] = (),
    *,
    dtypes: Mapping[str, np.dtype] | None = None,
    finite: bool = True,
    labels: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Fresh, contiguous, 64-byte aligned copies of arrays, made by a few threads.

    Args:
      arrays: by name; any strides, any dtype of NumPy or ml_dtypes.
      checks: run beside the copies, such as checksums of the file; what they raise is raised here.
      dtypes: types to cast to, by name; the others keep theirs. Integers must fit, floats are rounded.
      finite: refuse NaN and infinity in floating arrays.
      labels: names to use in errors, where they differ.

    Returns:
      the copies by name.

    Raises:
      CorruptFileError: an integer does not fit the type asked for; or what a check raises.
      NonFiniteError: names the array and how many of its values are not finite.

    Example:
      >>> materialise({"w": np.arange(4.0)[::2]})["w"]
      array([0., 2.])
    """
    shown_as = labels or {}
    wanted = dtypes or {}
    copies = {
        name: aligned_empty(array.shape, wanted.get(name, array.dtype)) for name, array in arrays.items()
    }
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        running = [pool.submit(check) for check in checks]
        for name, source in arrays.items():
            running += [
                pool.submit(_copy_part, shown_as.get(name, name), source, copies[name], part, finite)
                for part in _parts(source, copies[name])
            ]
        for task in running:
            task.result()
    return copies


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
    """Slices worth a task each, along the axis that cuts the file into pieces; None is the whole."""
    if not source.ndim or source.nbytes <= _TASK_BYTES:
        yield None
        return
    length = copy.shape[_outer_axis(source)]
    lines = max(1, length * _TASK_BYTES // source.nbytes)
    lines = max(_BLOCK, lines) if not source.flags.c_contiguous else lines
    for start in range(0, length, lines):
        yield slice(start, start + lines)


def _copy_part(name: str, source: np.ndarray, copy: np.ndarray, part: slice | None, finite: bool) -> None:
    whole = source
    if part is not None:
        index = (slice(None),) * _outer_axis(source) + (part,)
        source, copy = source[index], copy[index]
    try:
        for chunk in _copied(source, copy):
            if finite and not all_finite(chunk):
                raise _non_finite(name, whole, copy.dtype)
    except OverflowError as error:
        raise CorruptFileError(
            f"{name!r} holds {source.dtype} values that do not fit {copy.dtype}"
        ) from error


def _outer_axis(array: np.ndarray) -> int:
    return 1 if _is_transposed(array) else 0


def _is_transposed(array: np.ndarray) -> bool:
    return array.ndim == 2 and not array.flags.c_contiguous and array.strides[0] < array.strides[1]


def _copied(source: np.ndarray, copy: np.ndarray) -> Iterator[np.ndarray]:
    """Copies piece by piece, and hands each piece over while it is in the cache."""
    if source.flags.c_contiguous and copy.flags.c_contiguous:
        source, copy = source.reshape(-1), copy.reshape(-1)
        step = max(1, _CHUNK_BYTES // source.dtype.itemsize)
        for start in range(0, source.size, step):
            piece = copy[start : start + step]
            _assign(piece, source[start : start + step])
            yield piece
    elif _is_transposed(source):
        yield from _copied_transposed(source.T, copy)
    else:
        _assign(copy, source)
        yield copy


def _copied_transposed(lines: np.ndarray, copy: np.ndarray) -> Iterator[np.ndarray]:
    """``copy[...] = lines.T`` by blocks, through a scratch block with an odd line length.

    Lines whose distance is a power of two fall into the same few sets of the cache, which then holds
    none of them: copying such a block at once is 3 times slower. The file is read along its lines, since
    its pages are small, and written across, since large arrays have large pages.
    """
    padded = np.empty((_BLOCK, _BLOCK + _ALIGNMENT // lines.dtype.itemsize), lines.dtype)
    for row in range(0, lines.shape[0], _BLOCK):
        for column in range(0, lines.shape[1], _BLOCK):
            block = lines[row : row + _BLOCK, column : column + _BLOCK]
            scratch = padded[: block.shape[0], : block.shape[1]]
            np.copyto(scratch, block)
            target = copy[column : column + _BLOCK, row : row + _BLOCK]
            _assign(target, scratch.T)
            yield scratch if scratch.dtype == target.dtype else target


def _assign(target: np.ndarray, source: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # what overflows is found by the check for infinity
        np.copyto(target, source, casting="unsafe")
    if target.dtype.kind in "iu" and target.dtype != source.dtype and not np.array_equal(target, source):
        raise OverflowError


def _non_finite(name: str, array: np.ndarray, dtype: np.dtype) -> NonFiniteError:
    with np.errstate(over="ignore"):
        bad = int(array.size - np.count_nonzero(np.isfinite(array.astype(dtype))))
    return NonFiniteError(
        f"{bad} of {array.size} values of {name!r} are NaN or infinite as {dtype}; did training diverge?"
    )
