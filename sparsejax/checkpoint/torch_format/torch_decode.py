"""Decodes the pickles of the two torch containers into trees of lazy tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    TruncatedFileError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.torch_format import pickle_opcodes
from sparsejax.checkpoint.torch_format.numpy_pickles import PickledArray, PickledDtype
from sparsejax.checkpoint.torch_format.pickle_machine import Constructor, Machine
from sparsejax.checkpoint.torch_format.pickle_tree import TreeError, rebuild
from sparsejax.checkpoint.torch_format.storages import Identity, Storage, StorageHandle, TensorRef, tensor_ref
from sparsejax.checkpoint.torch_format.torch_globals import ALLOWED, StorageType, build
from sparsejax.checkpoint.torch_format.torch_zip import Archive, record

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
NEWEST_ZIP_VERSION = 10
PICKLE_HEAD = 64  # bytes in which the magic number of a legacy file ends
INTERPRETER_BYTES = 256 << 20  # what a pickle may unfold to beside a multiple of its file
UNFOLDING = 4  # that multiple; tensor views may together be as large, plus SPARE_BYTES
SPARE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the pickles of a file say.

    Attributes:
      tree: nested Python values with `TensorRef` leaves.
      globals: the names that they use, sorted.
    """

    tree: object
    globals: tuple[str, ...]


def decode_zip(archive: Archive, file: mmap, where: str) -> Decoded:
    """Decodes data.pkl of a zip file; the storages are not read.

    Raises:
      CheckpointError: as `torch_file.open_file`.
    """
    _check_version(record(archive, "version", file, where), where)
    order = record(archive, "byteorder", file, where)
    if order not in (None, b"little", b"big"):
        raise CorruptFileError(f"{where}: its byteorder record is neither 'little' nor 'big'")
    pickle = record(archive, "data.pkl", file, where)
    if pickle is None:
        raise CorruptFileError(f"{where}: its data.pkl is missing")
    storages = _ZipStorages(archive, file, order == b"big", where)
    machine = _machine(pickle, len(file), storages.load, where)
    return _decoded(pickle_opcodes.run(machine), machine, len(file), where)


def is_legacy(file: mmap) -> bool:
    """Whether a file starts with the magic number of torch's format before 1.6."""
    head = file[:PICKLE_HEAD]
    if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" not in head and str(MAGIC).encode() not in head:
        return False
    try:
        return pickle_opcodes.run(_machine(head, len(head), _no_storages, "")) == MAGIC
    except CheckpointError:
        return False


def decode_legacy(file: mmap, where: str) -> Decoded:
    """Decodes the five pickles of a legacy file and finds its storages; they are not read.

    Raises:
      CheckpointError: as `torch_file.open_file`.
    """
    storages = _LegacyStorages(file, where)
    position = 0
    values: list[object] = []
    names: set[str] = set()
    for load in (_no_storages, _no_storages, _no_storages, storages.load, _no_storages):
        machine = _machine(file, len(file), load, where, position)
        values.append(pickle_opcodes.run(machine))
        position = machine.position
        names |= machine.globals
    _, version, _, tree, keys = values
    if version != PROTOCOL_VERSION:
        raise CorruptFileError(f"{where}: its legacy protocol version is not {PROTOCOL_VERSION}")
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise CorruptFileError(f"{where}: its list of storages is malformed")
    storages.place(keys, position)
    machine.globals = names
    return _decoded(tree, machine, len(file), where)


def _machine(
    data: bytes | mmap, file_bytes: int, load: Callable[[object], object], where: str, start: int = 0
) -> Machine:
    budget = UNFOLDING * file_bytes + INTERPRETER_BYTES
    return Machine(
        data, allowed=ALLOWED, persistent_load=load, build=build, where=where, budget=budget, start=start
    )


def _decoded(value: object, machine: Machine, file_bytes: int, where: str) -> Decoded:
    leaves = _Leaves(UNFOLDING * file_bytes + SPARE_BYTES, where)
    try:
        tree = rebuild(value, leaves.settle)
    except TreeError as error:
        raise CorruptFileError(f"{where}: {error}; save a plain nested dict of tensors") from None
    return Decoded(tree, tuple(sorted(machine.globals)))


class _Leaves:
    """Replaces what only the interpreter knows by what a reader wants."""

    def __init__(self, limit: int, where: str):
        self.limit = limit
        self.where = where
        self.seen: dict[Identity, TensorRef] = {}

    def settle(self, value: object) -> object:
        if isinstance(value, StorageHandle):
            value = self._whole(value)
        if isinstance(value, TensorRef):
            self._count(value)
            return value
        if isinstance(value, PickledArray):
            return value.array
        if isinstance(value, PickledDtype):
            return value.dtype
        if isinstance(value, Constructor | StorageType):
            return value.name
        return value

    def _whole(self, handle: StorageHandle) -> TensorRef:
        """A storage that was saved by itself, as a vector of its elements."""
        return tensor_ref(handle, 0, (handle.nbytes // handle.dtype.itemsize,), (1,), handle.dtype)

    def _count(self, ref: TensorRef) -> None:
        if ref.identity in self.seen:
            return
        self.seen[ref.identity] = ref
        self.limit -= ref.nbytes
        if self.limit < 0:
            raise CorruptFileError(
                f"{self.where}: its tensors would unfold to more than {UNFOLDING} times the file; "
                "save expanded tensors with .contiguous()"
            )


def _no_storages(_identity: object) -> object:
    raise ValueError("a storage where none belongs")


def _check_version(raw: bytes | None, where: str) -> None:
    if raw is None:
        return
    text = raw.strip()
    if not text.isdigit() or not 1 <= int(text[:4]) <= NEWEST_ZIP_VERSION:
        raise CorruptFileError(f"{where}: its version record is not 1 to {NEWEST_ZIP_VERSION}")


def _storage_fields(identity: object, count: int) -> tuple[StorageType, str, int, tuple[object, ...]]:
    """Type, key, number of elements and what else a persistent id holds."""
    if not isinstance(identity, tuple) or len(identity) != count or identity[0] != "storage":
        raise ValueError("a persistent id that is not a storage")
    _, kind, key, location, numel, *rest = identity
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not isinstance(location, str):
        raise ValueError("a persistent id with wrong fields")
    if type(numel) is not int or numel < 0:
        raise ValueError("a storage of a negative or unknown size")
    if not kind.supported:
        raise UnsupportedTensorError(
            f"a quantised tensor ({kind.name}) is not supported; save tensor.dequantize()"
        )
    return kind, key, numel, tuple(rest)


class _ZipStorages:
    def __init__(self, archive: Archive, file: mmap, big_endian: bool, where: str):
        self.archive = archive
        self.file = file
        self.big_endian = big_endian
        self.where = where
        self.handles: dict[str, StorageHandle] = {}

    def load(self, identity: object) -> StorageHandle:
        kind, key, numel, _ = _storage_fields(identity, 5)
        nbytes = numel * kind.dtype.itemsize
        handle = self.handles.get(key)
        if handle is None:
            handle = self.handles[key] = self._new(kind, key, nbytes)
        _check_same(handle, kind, nbytes)
        return handle

    def _new(self, kind: StorageType, key: str, nbytes: int) -> StorageHandle:
        entry = self.archive.entries.get(f"data/{key}")
        if entry is None:
            raise CorruptFileError(
                f"{self.where}: record 'data/{key[:40]}' is missing; fetch or save the file again"
            )
        if nbytes > entry.nbytes:
            raise CorruptFileError(
                f"{self.where}: record 'data/{key[:40]}' has {entry.nbytes} bytes, not the {nbytes} announced"
            )
        crc = entry.crc if self.archive.has_checksums else None
        storage = Storage(key, self.file, entry.start, nbytes, self.big_endian, self.where, crc, entry.nbytes)
        return StorageHandle(storage, kind.dtype, 0, nbytes)


class _LegacyStorages:
    """Storages whose place is known only after the pickles; their data is always little-endian."""

    def __init__(self, file: mmap, where: str):
        self.file = file
        self.where = where
        self.handles: dict[str, StorageHandle] = {}

    def load(self, identity: object) -> object:
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]
        kind, key, numel, (view,) = _storage_fields(identity, 6)
        nbytes = numel * kind.dtype.itemsize
        if nbytes > len(self.file):
            raise CorruptFileError(f"{self.where}: storage {key[:40]!r} is announced larger than the file")
        handle = self.handles.get(key)
        if handle is None:
            storage = Storage(key, self.file, -1, nbytes, False, self.where)
            handle = self.handles[key] = StorageHandle(storage, kind.dtype, 0, nbytes)
        _check_same(handle, kind, nbytes)
        return _window(handle, view)

    def place(self, keys: list[str], position: int) -> None:
        """Finds the data of each storage: an int64 count of elements, then the elements."""
        if sorted(keys) != sorted(self.handles):
            raise CorruptFileError(f"{self.where}: its list of storages disagrees with its tensors")
        for key in keys:
            handle = self.handles[key]
            start = position + 8
            position = start + handle.nbytes
            if position > len(self.file):
                raise TruncatedFileError(
                    f"{self.where}: it ends inside storage {key!r}; fetch the file again"
                )
            count = int.from_bytes(self.file[start - 8 : start], "little")
            if count * handle.dtype.itemsize != handle.nbytes:
                raise CorruptFileError(f"{self.where}: storage {key!r} has another size than its tensors say")
            handle.storage.start = start


def _check_same(handle: StorageHandle, kind: StorageType, nbytes: int) -> None:
    """Raises unless a storage is used as it was the first time; torch would take it for that."""
    if handle.nbytes != nbytes or handle.dtype != kind.dtype:
        raise ValueError(f"storage {handle.storage.key!r} is used with two sizes or element types")


def _window(handle: StorageHandle, view: object) -> StorageHandle:
    """The part of a storage that an old file's view metadata ``(key, offset, size)`` names."""
    if view is None:
        return handle
    if not isinstance(view, tuple) or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
        raise ValueError("view metadata is malformed")
    start, nbytes = view[1] * handle.dtype.itemsize, view[2] * handle.dtype.itemsize
    if start + nbytes > handle.nbytes:
        raise ValueError("a view reaches beyond its storage")
    return StorageHandle(handle.storage, handle.dtype, handle.start + start, nbytes)
