"""Walks over what a pickle held: finite ones, that keep shared containers shared."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

from sparsejax.checkpoint.torch_format.torch_types import TorchSize

MAX_DEPTH = 100
SHARING = 4  # times that shared containers may multiply the values a plain walk meets
FREE_VALUES = 1_000_000  # below this many, sharing is not looked at

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})


class TreeError(ValueError):
    """A tree that a plain walk could not leave: cyclic, too deep, or multiplied by sharing."""


def rebuild(tree: object, leaf: Callable[[object], object]) -> object:
    """A copy of nested containers with every other value replaced.

    Args:
      tree: dicts, OrderedDicts (with their ``_metadata`` attribute), Counters, lists, tuples,
        TorchSizes and whatever they hold.
      leaf: gives the replacement of a value that is no container, number, text or None.

    Returns:
      containers of the same types; one that occurred twice is one object twice again.

    Raises:
      TreeError: a container holds itself, they are nested more than 100 deep, or sharing multiplies
        them beyond reason.
    """
    walk = _Walk(leaf)
    value, count = walk.visit(tree, MAX_DEPTH)
    if count > SHARING * walk.unique + FREE_VALUES:
        raise TreeError("shared containers multiply beyond reason")
    return value


def leaves(tree: object) -> Iterator[object]:
    """What is neither a dict, a list nor a tuple in a tree, in its order, without ``_metadata``."""
    if isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


class _Walk:
    def __init__(self, leaf: Callable[[object], object]):
        self.leaf = leaf
        self.unique = 0
        self.done: dict[int, tuple[object, int]] = {}
        self.open: set[int] = set()

    def visit(self, value: object, depth: int) -> tuple[object, int]:
        """The copy, and how many values a walk without memory would meet in it."""
        self.unique += 1
        if type(value) in _ATOMS:
            return value, 1
        if not isinstance(value, dict | list | tuple):
            return self.leaf(value), 1
        key = id(value)
        if key in self.done:
            return self.done[key]
        if key in self.open:
            raise TreeError("a container holds itself")
        if depth == 0:
            raise TreeError(f"containers are nested more than {MAX_DEPTH} deep")
        self.open.add(key)
        result = self._mapping(value, depth - 1) if isinstance(value, dict) else self._row(value, depth - 1)
        self.open.remove(key)
        self.done[key] = result
        return result

    def _row(self, value: list[object] | tuple[object, ...], depth: int) -> tuple[object, int]:
        if type(value) is TorchSize:
            return value, len(value)
        items = []
        total = 1
        for item in value:
            made, count = (item, 1) if type(item) in _ATOMS else self.visit(item, depth)
            items.append(made)
            total += count
        self.unique += len(items)
        return (items if isinstance(value, list) else tuple(items)), total

    def _mapping(self, value: dict[object, object], depth: int) -> tuple[object, int]:
        made: dict[object, object] = type(value)() if type(value) in (OrderedDict, Counter) else {}
        total = 1
        for key, item in value.items():
            made[key], count = self.visit(item, depth)
            total += count
        metadata = getattr(value, "_metadata", None)
        if metadata is not None:
            # A plain OrderedDict declares no such attribute; torch sets it all the same.
            made._metadata, count = self.visit(metadata, depth)  # type: ignore[attr-defined]
            total += count
        return made, total
