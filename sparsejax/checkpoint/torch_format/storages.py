"""Storages inside a memory-mapped file, and tensors as lazy views of them.

The arrays given out read the file's pages directly. If another process shortens the file while they
are in use, the operating system ends this process with SIGBUS: replace such files (write beside and
rename) rather than overwrite them.
"""

from __future__ import annotations

import math
import mmap
import sys
import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from sparsejax.checkpoint.errors import CorruptFileError

Identity = tuple[str, np.dtype, int, tuple[int, ...], tuple[int, ...], tuple[bool, bool]]
"""Key of the storage, dtype, offset, shape, strides, and whether conjugated and negated."""

MAX_DIMENSIONS = 64  # NumPy's own limit
MAX_EXTENT = 2**62
CHUNK_BYTES = 2 << 20  # worked on at once: small enough for a core's cache
_LET_GO = getattr(mmap, "MADV_DONTNEED", None)


def checksum_error(where: str, name: str) -> CorruptFileError:
    """The error for a record whose bytes are not those that were written."""
    return CorruptFileError(
        f"{where}: record {name!r} does not match its checksum; fetch or save the file again"
    )


@dataclass(slots=True, eq=False)
class Storage:
    """A run of bytes in the file that tensors view.

    Attributes:
      key: its name in the file.
      map: the file.
      start: first byte in the file; -1 until the legacy reader has found it.
      nbytes: its size.
      big_endian: byte order of its elements.
      where: the file's name, for messages.
      crc: CRC-32 of the zip entry, or None if the file holds none.
      entry_nbytes: the bytes that `crc` covers.
      verified: the CRC was compared and agreed.
    """

    key: str
    map: mmap.mmap
    start: int
    nbytes: int
    big_endian: bool
    where: str
    crc: int | None = None
    entry_nbytes: int = 0
    verified: bool = False
    _bytes: np.ndarray | None = None
    _native: dict[int, np.ndarray] = field(default_factory=dict)
    _views: dict[Identity, np.ndarray] = field(default_factory=dict)

    def raw(self, nbytes: int | None = None) -> np.ndarray:
        """The first ``nbytes`` bytes of the mapped file region (uint8, read-only, no copy)."""
        count = self.nbytes if nbytes is None else nbytes
        if count == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(self.map, np.uint8, count, self.start)

    def verify(self) -> None:
        """Compares its bytes with the file's checksum, unless done before or there is none.

        Raises:
          CorruptFileError: they differ; the record is named.
        """
        if self.crc is None or self.verified:
            return
        raw, total = self.raw(self.entry_nbytes), 0
        for low in range(0, raw.size, CHUNK_BYTES):
            total = zlib.crc32(raw[low : low + CHUNK_BYTES].data, total)
            self.release(low, CHUNK_BYTES)
        if total != self.crc:
            raise checksum_error(self.where, f"data/{self.key}")
        self.verified = True

    def release(self, low: int, nbytes: int) -> None:
        """Lets go of mapped pages that were looked at: they stay in the system's cache, not in ours.

        Without it a copy of a large file counts twice, once as the copy and once as the map.
        """
        if nbytes >= CHUNK_BYTES and _LET_GO is not None:
            start = (self.start + low) // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(_LET_GO, start, min(nbytes, len(self.map) - start))

    def swapped(self, dtype: np.dtype) -> bool:
        """Whether elements of ``dtype`` are stored in the other byte order than this machine's."""
        return dtype.itemsize > 1 and self.big_endian != (sys.byteorder == "big")

    def native(self, dtype: np.dtype) -> np.ndarray:
        """Its bytes (uint8, read-only) in this machine's byte order, aligned for ``dtype``.

        The map itself where it can be; otherwise a copy, made once.
        """
        if self._bytes is None:
            self._bytes = _frozen(self.raw())
        word = word_size(dtype)
        if not self.swapped(dtype) and self.start % min(word, 8) == 0:
            return self._bytes
        if not self.swapped(dtype):
            word = 0
        if word not in self._native:
            copied = aligned_empty((self.nbytes,), np.dtype(np.uint8))
            copied[...] = self._bytes
            if word:
                swap_in_place(copied, word)
            self._native[word] = _frozen(copied)
        return self._native[word]


@dataclass(frozen=True, slots=True)
class StorageHandle:
    """A storage as a pickle refers to it: with the type of its elements and a window.

    Attributes:
      storage: the bytes.
      dtype: element type; uint8 for an untyped storage, whose elements are bytes.
      start: first byte of the window.
      nbytes: size of the window.
    """

    storage: Storage
    dtype: np.dtype
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor of the file, not read yet.

    Attributes:
      storage: the bytes that it views; the same object for tensors that share memory.
      dtype: element type.
      shape: its dimensions.
      strides: steps between elements along each dimension, in elements.
      offset: byte of the storage at which its first element starts.
      requires_grad: as saved.
      is_parameter: it was a ``torch.nn.Parameter``.
      conjugated: the values are the complex conjugates of the stored ones.
      negated: the values are the negatives of the stored ones.
    """

    storage: Storage
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool = False
    is_parameter: bool = False
    conjugated: bool = False
    negated: bool = False

    def marked(self, requires_grad: bool, conjugated: bool, negated: bool) -> TensorRef:
        """The same tensor with the flags that its pickle sets."""
        return replace(self, requires_grad=requires_grad, conjugated=conjugated, negated=negated)

    def as_parameter(self, requires_grad: bool) -> TensorRef:
        """The same tensor as a ``torch.nn.Parameter``."""
        return replace(self, requires_grad=requires_grad, is_parameter=True)

    @property
    def nbytes(self) -> int:
        """Size of the tensor as a contiguous array, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def identity(self) -> Identity:
        """Equal for two tensors of one file that are the same elements in the same order."""
        flags = (self.conjugated, self.negated)
        return (self.storage.key, self.dtype, self.offset, self.shape, self.strides, flags)

    def view(self) -> np.ndarray:
        """The tensor's values, without a copy where the file's layout allows.

        Tied tensors give one and the same array object, and views of one storage share memory.

        Returns:
          a read-only array of `shape` and `dtype`; strided as the tensor was. Its checksum is not
          looked at: `verify` of `bulk` does that.
        """
        views = self.storage._views
        key = self.identity
        if key not in views:
            views[key] = self._make_view()
        return views[key]

    def _make_view(self) -> np.ndarray:
        array = self.strided(self.storage.native(self.dtype))
        if self.conjugated:
            array = np.conjugate(array)
        if self.negated:
            array = np.negative(array)
        return _frozen(array)

    def strided(self, raw: np.ndarray) -> np.ndarray:
        """The elements of the tensor within the storage's bytes ``raw``, signs as stored."""
        if self.nbytes == 0:
            return _frozen(np.empty(self.shape, self.dtype))
        size = self.dtype.itemsize
        steps = [
            stride * size if length > 1 else size
            for length, stride in zip(self.shape, self.strides, strict=True)
        ]
        return np.ndarray(self.shape, self.dtype, raw, self.offset, steps)


def tensor_ref(
    handle: StorageHandle, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype
) -> TensorRef:
    """A tensor in a storage, after checking that it lies inside.

    Args:
      handle: the storage.
      offset: first element.
      shape: dimensions.
      strides: steps in elements.
      dtype: element type.

    Raises:
      ValueError: any number is not a plain non-negative int, or the elements would reach beyond the
        storage.
    """
    what = f"a tensor in storage {handle.storage.key!r}"
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{what} has {len(shape)} dimensions and {len(strides)} strides")
    if not all(type(number) is int and 0 <= number < MAX_EXTENT for number in (offset, *shape, *strides)):
        raise ValueError(f"{what} has a shape, stride or offset that is negative, huge or no integer")
    if math.prod(length for length in shape if length) * dtype.itemsize >= MAX_EXTENT:
        raise ValueError(f"{what} has more elements than any memory")
    last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    elements = offset if 0 in shape else offset + last + 1
    if elements * dtype.itemsize > handle.nbytes:
        raise ValueError(f"{what} reaches beyond its {handle.nbytes} bytes")
    return TensorRef(handle.storage, dtype, shape, strides, handle.start + offset * dtype.itemsize)


def word_size(dtype: np.dtype) -> int:
    """Bytes that a change of byte order reverses together: half an element of a complex dtype."""
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize


def swap_in_place(raw: np.ndarray, word: int) -> None:
    """Reverses the bytes of every whole word of ``raw`` (uint8)."""
    words = raw[: raw.size // word * word].view(f"u{word}")
    words.byteswap(inplace=True)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype, alignment: int = 64) -> np.ndarray:
    """An uninitialised C-contiguous array whose data starts at a multiple of ``alignment`` bytes."""
    nbytes = math.prod(shape) * dtype.itemsize
    buffer = np.empty(nbytes + alignment, np.uint8)
    skip = -buffer.ctypes.data % alignment
    return buffer[skip : skip + nbytes].view(dtype).reshape(shape)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
