"""Spells nested values and placed arrays as torch pickles them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax.checkpoint.torch_format.pickle_writer import PickleWriter
from sparsejax.checkpoint.torch_format.storage_layout import OutStorage, Place
from sparsejax.checkpoint.torch_format.torch_survey import Survey, is_array
from sparsejax.checkpoint.torch_format.torch_types import (
    TorchDevice,
    TorchDtype,
    TorchSize,
    names_by_dtype,
    storages_by_dtype,
)

_DTYPE_NAMES = names_by_dtype()
_STORAGE_NAMES = storages_by_dtype()

Container = dict[object, object] | list[object] | tuple[object, ...] | set[object]


def emit(value: object, survey: Survey, storages: Sequence[OutStorage], places: Sequence[Place]) -> bytes:
    """The data.pkl of a torch file.

    Args:
      value: what the survey has walked over.
      survey: the arrays found in it.
      storages: the storages to refer to, by number.
      places: the place of each array of the survey.
    """
    emitter = _Emitter(survey, storages, places)
    emitter.value(value)
    return emitter.out.finish()


class _Emitter:
    def __init__(self, survey: Survey, storages: Sequence[OutStorage], places: Sequence[Place]):
        self.survey = survey
        self.storages = storages
        self.places = places
        self.out = PickleWriter()

    def value(self, value: object) -> None:
        if is_array(value):
            self._tensor(self.survey.number(value))
        elif isinstance(value, dict | list | tuple | set):
            self._shared(value)
        else:
            self._atom(value.item() if isinstance(value, np.generic) else value)

    def _shared(self, value: Container) -> None:
        """A container; one met before is referred to."""
        if self.out.recall(id(value)):
            return
        if isinstance(value, dict):
            self._mapping(value)
        elif isinstance(value, list):
            self._list(value)
            self.out.remember(id(value))
        elif isinstance(value, set):
            self._set(value)
            self.out.remember(id(value))
        else:
            self._tuple(value)
            if isinstance(value, TorchSize):
                self.out.close_tuple(1)
                self.out.raw(b"R")
            self.out.remember(id(value))

    def _atom(self, value: object) -> None:
        if value is None or isinstance(value, bool):
            self.out.constant(value)
        elif isinstance(value, int):
            self.out.integer(int(value))
        elif isinstance(value, float):
            self.out.floating(value)
        elif isinstance(value, complex):
            self._call("__builtin__", "complex", (value.real, value.imag))
        elif isinstance(value, bytes):
            self._call("_codecs", "encode", (value.decode("latin1"), "latin1"))
        elif isinstance(value, TorchDtype):
            self.out.name("torch", value.removeprefix("torch."))
        elif isinstance(value, TorchDevice):
            kind, _, index = str(value).partition(":")
            self._call("torch", "device", (kind, int(index)) if index else (kind,))
        else:
            self.out.text(str(value))

    def _call(self, module: str, name: str, args: tuple[object, ...]) -> None:
        self.out.name(module, name)
        self._tuple(args)
        self.out.raw(b"R")

    def _tuple(self, items: tuple[object, ...]) -> None:
        if isinstance(items, TorchSize):
            self.out.name("torch", "Size")
        if len(items) > 3:
            self.out.raw(b"(")
        for item in items:
            self.value(item)
        self.out.close_tuple(len(items))

    def _list(self, items: Sequence[object]) -> None:
        self.out.raw(b"]")
        for item in self.out.batches(items, b"a", b"e"):
            self.value(item)

    def _set(self, members: set[object]) -> None:
        self.out.name("__builtin__", "set")
        self._list(sorted(members, key=lambda member: (type(member).__name__, repr(member))))
        self.out.close_tuple(1)
        self.out.raw(b"R")

    def _mapping(self, value: dict[object, object]) -> None:
        if isinstance(value, Counter):
            self._counter(value)
            return
        if isinstance(value, OrderedDict):
            self._call("collections", "OrderedDict", ())
        else:
            self.out.raw(b"}")
        self.out.remember(id(value))
        self._items(value)
        metadata = getattr(value, "_metadata", None)
        if metadata is not None and isinstance(value, OrderedDict):
            self.out.raw(b"}")
            self.out.text("_metadata")
            self.value(metadata)
            self.out.raw(b"sb")

    def _counter(self, value: Counter[object]) -> None:
        self.out.name("collections", "Counter")
        self.out.raw(b"}")
        self._items(value)
        self.out.close_tuple(1)
        self.out.raw(b"R")
        self.out.remember(id(value))

    def _items(self, value: Mapping[Any, object]) -> None:
        for key, item in self.out.batches(value.items(), b"s", b"u"):
            self.value(key)
            self.value(item)

    def _tensor(self, number: int) -> None:
        if self.out.recall(("array", number)):
            return
        array, place = self.survey.arrays[number], self.places[number]
        dtype = _DTYPE_NAMES[array.dtype]
        typed = self.storages[place.storage].dtype is not None and dtype in _STORAGE_NAMES
        self.out.name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self.out.raw(b"(")
        self._storage(place.storage, _STORAGE_NAMES[dtype] if typed else None)
        self.out.integer(place.offset)
        self._tuple(array.shape)
        self._tuple(place.strides)
        self.out.constant(False)
        self._call("collections", "OrderedDict", ())
        if not typed:
            self.out.name("torch", dtype)
        self.out.raw(b"tR")
        self.out.remember(("array", number))

    def _storage(self, number: int, kind: str | None) -> None:
        storage = self.storages[number]
        self.out.raw(b"(")
        self.out.text("storage")
        if kind is None or storage.dtype is None:
            self.out.name("torch.storage", "UntypedStorage")
            count = storage.raw.size
        else:
            self.out.name("torch", kind)
            count = storage.raw.size // storage.dtype.itemsize
        self.out.text(str(number))
        self.out.text("cpu")
        self.out.integer(count)
        self.out.raw(b"tQ")
