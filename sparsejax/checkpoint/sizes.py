"""What a family reads off the keys and shapes of a file, with what is missing or damaged told by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError, shown
from sparsejax.checkpoint.registry import Tensors


def require(tensors: Collection[str], keys: Iterable[str]) -> None:
    """Refuse a file without some of its tensors.

    Raises:
      MissingKeyError: names those that are missing.
    """
    if absent := [key for key in keys if key not in tensors]:
        raise MissingKeyError(f"the tensors {shown(absent)} are missing; save the whole state dict")


def shape_of(tensors: Tensors, key: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that sizes are read from.

    Args:
      tensors: by key.
      key: of the tensor.
      axes: that it must have.

    Raises:
      MissingKeyError: it is not there.
      CorruptFileError: it has other axes, or an empty one.
    """
    require(tensors, (key,))
    shape = tuple(int(size) for size in tensors[key].shape)
    if len(shape) != axes or 0 in shape:
        raise CorruptFileError(f"{key!r} has shape {shape}; {axes} axes of at least one are needed")
    return shape


def count_parts(tensors: Collection[str], stem: str) -> int:
    """How many numbered parts follow ``stem``, as in "layers.0.norm.weight" and "layers.0".

    Raises:
      MissingKeyError: there is none, or one is left out.

    Example:
      >>> count_parts(dict.fromkeys(["layers.1.bias", "layers.0.bias", "layers.x"]), "layers")
      2
    """
    matcher = re.compile(rf"{re.escape(stem)}\.(0|[1-9][0-9]{{0,8}})(?:\..+)?")
    numbers = {int(found[1]) for key in tensors if (found := matcher.fullmatch(key))}
    absent = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if absent < len(numbers) or not numbers:
        require(tensors, (f"{stem}.{absent}",))
    return len(numbers)
