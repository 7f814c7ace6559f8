"""Decides which arrays share a storage when they are written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.array_utils import byte_bounds

SHARING = 4  # times that the arrays of a storage may be larger than it: what the reader accepts


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies.

    Attributes:
      storage: index of its storage.
      offset: first element, counted in elements of the array.
      strides: steps in elements.
    """

    storage: int
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutStorage:
    """Bytes to write as one storage.

    Attributes:
      raw: the bytes (uint8), a view of the arrays' own memory where possible.
      dtype: element type of its arrays; None if they have several.
    """

    raw: np.ndarray
    dtype: np.dtype | None


@dataclass(slots=True)
class _Span:
    """Arrays whose memory overlaps, or touches inside one buffer."""

    low: int
    high: int
    roots: set[int]
    members: list[int] = field(default_factory=list)


class _Memory:
    """A run of memory as NumPy may look at it, kept alive by an array that owns it."""

    def __init__(self, start: int, nbytes: int, owners: list[np.ndarray]):
        self.owners = owners
        self.__array_interface__ = {"data": (start, True), "shape": (nbytes,), "typestr": "|u1", "version": 3}


def lay_out(arrays: list[np.ndarray]) -> tuple[list[OutStorage], list[Place]]:
    """Groups arrays into storages.

    Arrays that overlap in memory, or lie side by side in one buffer, share a storage that covers just
    them. An array with gaps or repeats that shares with no other is written without them.

    Args:
      arrays: distinct arrays in this machine's byte order.

    Returns:
      the storages, numbered by their first array, and the place of each array.
    """
    strided = [array if _has_plain_strides(array) else np.ascontiguousarray(array) for array in arrays]
    storages: list[OutStorage] = []
    places: dict[int, Place] = {}
    for span in _spans(strided):
        members = [strided[index] for index in span.members]
        if not _worth_sharing(span, members):
            for index in span.members:
                places[index] = _alone(strided[index], storages)
            continue
        dtypes = {member.dtype for member in members}
        raw = np.asarray(_Memory(span.low, span.high - span.low, members))
        storages.append(OutStorage(raw, dtypes.pop() if len(dtypes) == 1 else None))
        for index, member in zip(span.members, members, strict=True):
            offset = (byte_bounds(member)[0] - span.low) // member.dtype.itemsize
            places[index] = Place(len(storages) - 1, offset, _element_strides(member))
    return storages, [places[index] for index in range(len(arrays))]


def _spans(arrays: list[np.ndarray]) -> list[_Span]:
    """Runs of memory in use, ordered by the first array in each."""
    spans: list[_Span] = []
    bounds = [byte_bounds(array) if array.size else (0, 0) for array in arrays]
    for index in sorted(range(len(arrays)), key=lambda index: bounds[index]):
        low, high = bounds[index]
        root = _root(arrays[index])
        last = spans[-1] if spans else None
        if last and high > low and (low < last.high or (low == last.high and root in last.roots)):
            last.high = max(high, last.high)
            last.roots.add(root)
        else:
            last = _Span(low, high, {root})
            spans.append(last)
        last.members.append(index)
    for span in spans:
        span.members.sort()
    return sorted(spans, key=lambda span: span.members[0])


def _worth_sharing(span: _Span, members: list[np.ndarray]) -> bool:
    """Whether the span can be written as it lies, with its arrays as views."""
    nbytes = span.high - span.low
    total = sum(member.nbytes for member in members)
    if len(members) == 1:
        return 0 < total == nbytes
    aligned = all((byte_bounds(member)[0] - span.low) % member.dtype.itemsize == 0 for member in members)
    return aligned and total <= SHARING * nbytes


def _alone(array: np.ndarray, storages: list[OutStorage]) -> Place:
    array = np.ascontiguousarray(array).reshape(array.shape)
    storages.append(OutStorage(array.reshape(-1).view(np.uint8), array.dtype))
    return Place(len(storages) - 1, 0, _element_strides(array))


def _has_plain_strides(array: np.ndarray) -> bool:
    """Whether torch can express the strides: not negative, whole elements."""
    return all(stride >= 0 and stride % array.dtype.itemsize == 0 for stride in array.strides)


def _element_strides(array: np.ndarray) -> tuple[int, ...]:
    """Strides in elements; those of a row-major array are the canonical ones, whatever its lengths."""
    if not array.flags.c_contiguous:
        return tuple(stride // array.dtype.itemsize for stride in array.strides)
    strides = [1]
    for length in reversed(array.shape[1:]):
        strides.append(strides[-1] * max(length, 1))
    return tuple(reversed(strides[: array.ndim]))


def _root(array: np.ndarray) -> int:
    """Identity of the array that owns the memory, or first looked at it."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)
