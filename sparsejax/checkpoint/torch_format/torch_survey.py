"""Looks through an object to be written: finds its arrays, refuses what torch.load would refuse."""

from __future__ import annotations

import re
from pathlib import PurePath

import numpy as np

from sparsejax.checkpoint.errors import ExportError
from sparsejax.checkpoint.torch_format.pickle_tree import MAX_DEPTH
from sparsejax.checkpoint.torch_format.pickle_writer import LONGEST_INT
from sparsejax.checkpoint.torch_format.storages import TensorRef
from sparsejax.checkpoint.torch_format.torch_types import (
    OTHER_DTYPES,
    TorchDevice,
    TorchDtype,
    names_by_dtype,
)

_DTYPE_NAMES = names_by_dtype()
_TORCH_DTYPES = frozenset((*_DTYPE_NAMES.values(), *OTHER_DTYPES))
_DEVICE = re.compile(r"[a-z_]+\d*(:\d{1,3})?")


def is_array(value: object) -> bool:
    """Whether a value is written as a tensor: an array of NumPy or JAX, or a lazy tensor."""
    if isinstance(value, np.ndarray | TensorRef):
        return True
    return hasattr(value, "__array__") and hasattr(value, "dtype") and not isinstance(value, np.generic)


class Survey:
    """What one walk over an object finds.

    Args:
      where: the file's name for messages.

    Attributes:
      arrays: the distinct arrays, in this machine's byte order, as first met.
    """

    def __init__(self, where: str):
        self.where = where
        self.arrays: list[np.ndarray] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._seen: set[int] = set()
        self._open: set[int] = set()

    def number(self, value: object) -> int:
        """Index in `arrays` of an array met on the walk."""
        return self._numbers[id(value)]

    def walk(self, value: object, spot: str = "obj", depth: int = MAX_DEPTH) -> None:
        """Looks at ``value`` and everything below it.

        Args:
          value: what will be written.
          spot: where it is, for messages.
          depth: levels of containers that may still follow.

        Raises:
          ExportError: something in it cannot be written; the message says where it is.
        """
        if is_array(value):
            self._add(value, spot)
        elif isinstance(value, dict | list | tuple):
            self._enter(value, spot, depth)
        elif isinstance(value, set):
            for member in value:
                self._check_key(member, f"a member of {spot}")
        else:
            self._check_atom(value, spot)

    def _enter(
        self, value: dict[object, object] | list[object] | tuple[object, ...], spot: str, depth: int
    ) -> None:
        if id(value) in self._open:
            raise ExportError(f"{self.where}: {spot} holds itself, which cannot be written")
        if id(value) in self._seen:
            return
        if depth == 0:
            raise ExportError(f"{self.where}: {spot[:200]} is nested more than {MAX_DEPTH} deep")
        self._open.add(id(value))
        if isinstance(value, dict):
            self._walk_mapping(value, spot, depth - 1)
        else:
            for index, item in enumerate(value):
                self.walk(item, f"{spot}[{index}]", depth - 1)
        self._open.remove(id(value))
        self._seen.add(id(value))

    def _walk_mapping(self, value: dict[object, object], spot: str, depth: int) -> None:
        for key, item in value.items():
            self._check_key(key, f"a key of {spot}")
            self.walk(item, f"{spot}[{_short(key)}]", depth)
        self.walk(getattr(value, "_metadata", None), f"{spot}._metadata", depth)

    def _check_key(self, key: object, spot: str) -> None:
        if isinstance(key, tuple):
            for part in key:
                self._check_key(part, spot)
            return
        self._check_atom(key, spot)

    def _check_atom(self, value: object, spot: str) -> None:
        if isinstance(value, TorchDtype) and value.removeprefix("torch.") not in _TORCH_DTYPES:
            raise ExportError(f"{self.where}: {spot} is {_short(value)}, which is no torch dtype")
        if isinstance(value, TorchDevice) and not _DEVICE.fullmatch(value):
            raise ExportError(f"{self.where}: {spot} is {_short(value)}, which is no torch device")
        if isinstance(value, np.generic) and (value.dtype.kind in "biufcSU" or value.dtype in _DTYPE_NAMES):
            value = value.item()
        if isinstance(value, int) and value.bit_length() >= 8 * LONGEST_INT:
            raise ExportError(f"{self.where}: {spot} is an integer of more than 2,039 bits; write it as text")
        if value is None or isinstance(value, str | bytes | int | float | complex | PurePath):
            return
        raise ExportError(
            f"{self.where}: {spot} is a {type(value).__name__}, which torch.load(weights_only=True) refuses; "
            "convert it to plain Python values or an array"
        )

    def _add(self, value: object, spot: str) -> None:
        if id(value) in self._numbers:
            return
        array = value.view() if isinstance(value, TensorRef) else self._numpy(value, spot)
        dtype = array.dtype.newbyteorder("=")
        if dtype not in _DTYPE_NAMES:
            raise ExportError(f"{self.where}: {spot} is an array of {array.dtype}, which torch does not have")
        number = self._numbers.get(id(array))
        if number is None:
            number = len(self.arrays)
            self.arrays.append(array.astype(dtype, copy=False))
        self._numbers[id(value)] = self._numbers[id(array)] = number
        self._alive += [value, array]

    def _numpy(self, value: object, spot: str) -> np.ndarray:
        try:
            return np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ExportError(f"{self.where}: {spot} cannot be read as an array ({error})") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
