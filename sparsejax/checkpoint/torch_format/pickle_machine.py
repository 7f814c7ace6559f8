"""The state of our pickle interpreter: stack, memo, limits, and what a pickle may name.

It knows the pickle format, protocols 0 to 5, and nothing else: globals are looked up in a
dictionary of inert tokens, and only a `Constructor` of that dictionary is ever called. A global
outside the dictionary becomes a `Refused` placeholder; the rest of the stream is still decoded, so
that the error can say which other names the file asks for. The opcodes are in `pickle_opcodes`.

Limits: every length is compared with the bytes left before it is used, the memo is a dictionary,
and the objects made are charged against a budget, so that a short stream cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    TruncatedFileError,
    UnsafePickleError,
    shown,
)

KEY_INT_LIMIT = 2**61 - 1  # below it Python's hash of an int is the int itself: no made collisions
KEY_NODES = 64  # values inside one tuple key
TUPLE_KEYS = 8192  # tuple hashes can be forged to collide: their number stays small
REFUSED_NAMES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Constructor:
    """A global of the allow-list that a pickle may call.

    Attributes:
      name: the dotted name in the file.
      call: our own function that stands for it; None for a name that is only ever a value.
      hashes: it makes a set of its argument's items, which must pass as keys.
    """

    name: str
    call: Callable[..., object] | None = None
    hashes: bool = False

    @property
    def is_function(self) -> bool:
        """Whether the original is a function: it may be called, but makes no object of its own."""
        last = self.name.rpartition(".")[2]
        return last.startswith("_") or last in ("encode", "scalar")


class Refused:
    """Stands for a global outside the allow-list and for whatever the pickle makes of it."""

    __slots__ = ()


REFUSED = Refused()


class Machine:
    """Decodes one pickle, driven by `pickle_opcodes.run`.

    Args:
      data: bytes or a memory map that holds the pickle.
      allowed: inert tokens by dotted name; looked up exactly, never walked.
      persistent_load: called with each persistent id; returns the value it stands for.
      build: called with (object, state) for the BUILD opcode; raises where that is not allowed.
      where: the file's name for error messages.
      budget: bytes that the decoded objects may take, estimated.
      start: position of the first opcode.

    Attributes:
      position: the byte after the STOP opcode, once decoded.
      globals: the dotted names met.
    """

    def __init__(
        self,
        data: bytes | mmap,
        *,
        allowed: Mapping[str, object],
        persistent_load: Callable[[object], object],
        build: Callable[[object, object], None],
        where: str,
        budget: int,
        start: int = 0,
    ):
        self.data = data
        self.size = len(data)
        self.position = start
        self.allowed = allowed
        self.persistent_load = persistent_load
        self.build = build
        self.where = where
        self.budget = budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark, out of reach until it is taken
        self.memo: dict[int, object] = {}
        self.globals: set[str] = set()
        self.refused: dict[str, None] = {}
        self.tuple_keys = 0

    def raise_if_refused(self) -> None:
        """Raises `UnsafePickleError` if a global outside the allow-list was met."""
        if not self.refused:
            return
        first, *others = (name if len(name) <= 80 else f"{name[:80]}..." for name in self.refused)
        more = f" (and {shown(others)})" if others else ""
        raise UnsafePickleError(
            f"{self.where}: its pickle asks for {first!r}{more}, outside the allow-list; nothing was run. "
            "Save it again where it was made, as torch.save(model.state_dict(), path)",
            first,
        )

    def charge(self, amount: int) -> None:
        """Takes estimated bytes from the budget.

        Raises:
          CorruptFileError: it is overdrawn.
        """
        self.budget -= amount
        if self.budget < 0:
            raise CorruptFileError(
                f"{self.where}: its pickle unfolds to far more than the file; torch did not write it"
            )

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start = self.position
        end = start + count
        if count < 0 or end > self.size:
            raise TruncatedFileError(
                f"{self.where}: its pickle announces {count} bytes and the file has {self.size - start} left"
            )
        self.position = end
        return self.data[start:end]

    def line(self) -> bytes:
        """The bytes up to the next newline, which is passed over."""
        start = self.position
        end = self.data.find(b"\n", start)
        if end < 0:
            raise TruncatedFileError(f"{self.where}: its pickle ends inside a line")
        self.position = end + 1
        return self.data[start:end]

    def integer(self, count: int) -> int:
        """An unsigned little-endian integer of ``count`` bytes."""
        return int.from_bytes(self.take(count), "little")

    def items(self) -> list[Any]:
        """What was pushed since the last mark."""
        found = self.stack
        self.stack = self.below.pop()
        return found

    def find(self, module: object, name: object) -> None:
        """Pushes the token of a global, or a placeholder for one outside the allow-list."""
        if type(module) is not str or type(name) is not str:
            raise TypeError("a global's name is not text")
        path = f"{module}.{name}"
        self.globals.add(path)
        token = self.allowed.get(path, REFUSED) if "." not in name else REFUSED
        if token is REFUSED and len(self.refused) < REFUSED_NAMES:
            self.refused[path] = None
        self.stack.append(token)

    def construct(self, target: object, args: object) -> object:
        """What a constructor of the allow-list makes of its arguments."""
        if target is REFUSED:
            return REFUSED
        if type(target) is not Constructor or target.call is None:
            raise TypeError(f"a call of a {type(target).__name__} that is not a constructor")
        if type(args) is not tuple:
            raise TypeError("arguments that are not a tuple")
        self.charge_contents(args)
        if target.hashes and args and isinstance(args[0], list):
            for item in args[0]:
                self.key(item)
        return REFUSED if self.has_refused(args) else target.call(*args)

    def has_refused(self, values: tuple[object, ...]) -> bool:
        """Whether a refused global, or what it made, is among the values."""
        return bool(self.refused) and any(value is REFUSED for value in values)

    def charge_contents(self, values: tuple[object, ...]) -> None:
        """Charges for the containers among ``values``, which a constructor may copy."""
        amount = 16 * len(values)
        for value in values:
            if isinstance(value, str | bytes | bytearray):
                amount += 2 * len(value)
            elif isinstance(value, tuple):
                amount += 32 * len(value)
            elif isinstance(value, list | dict | set | frozenset):
                amount += 256 * len(value)
        self.charge(amount)

    def key(self, value: object) -> object:
        """The value, if it may be a dictionary key or a set member."""
        if type(value) is not str:
            self._check_key(value, KEY_NODES)
        return value

    def _check_key(self, value: object, nodes: int) -> int:
        if isinstance(value, tuple):
            self.tuple_keys += 1
            if self.tuple_keys > TUPLE_KEYS:
                raise ValueError(f"more than {TUPLE_KEYS} tuples as keys")
            for member in value:
                nodes = self._check_key(member, nodes - 1)
                if nodes <= 0:
                    raise ValueError(f"a key of more than {KEY_NODES} values")
            return nodes
        if type(value) is int and not -KEY_INT_LIMIT < value < KEY_INT_LIMIT:
            raise ValueError("an integer of more than 61 bits as a key")
        if value is None or isinstance(value, str | bytes | int | float | Refused):
            return nodes
        raise TypeError(f"a {type(value).__name__} as a key")
