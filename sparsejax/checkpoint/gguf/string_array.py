"""Many short texts, such as a vocabulary, kept as they lie in the file and decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from sparsejax.checkpoint.errors import GGUFError

_CONTINUATION = 0x80  # of the two highest bits, in every byte of a UTF-8 character but the first


class StringArray(Sequence[str]):
    """An immutable sequence of texts.

    Args:
      text: all of them joined, as UTF-8.
      ends: (n,) where each one ends.

    Example:
      >>> words = StringArray.of(["a", "", "bc"])
      >>> len(words), words[2], list(words), words == ["a", "", "bc"]
      (3, 'bc', ['a', '', 'bc'], True)
    """

    __slots__ = ("_ends", "_text")
    # Equal to lists, which have no hash; the base class declares that there is one.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: bytes, ends: np.ndarray):
        self._text = text
        self._ends = ends

    @classmethod
    def of(cls, words: Sequence[str]) -> StringArray:
        """The array of some texts."""
        encoded = [word.encode() for word in words]
        return cls(b"".join(encoded), np.cumsum([len(word) for word in encoded], dtype=np.int64))

    @classmethod
    def from_records(cls, records: bytes, ends: np.ndarray, what: str, offset: int) -> StringArray:
        """The array of texts that each have their length, 8 bytes, before them.

        All of them are checked at once: their joint bytes are UTF-8, and none begins within a character.

        Args:
          records: lengths and texts in turn.
          ends: (n,) where each record ends.
          what: they are, for the error.
          offset: byte of the file where they begin, for the error.

        Raises:
          GGUFError: one is no UTF-8.
        """
        if not ends.size:
            return cls(b"", ends)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) + 8
        raw = np.frombuffer(records, np.uint8)
        edges = np.zeros(raw.size + 1, np.int8)
        edges[starts - 8] += 1
        edges[starts] -= 1
        kept = np.cumsum(edges[:-1], dtype=np.int8) == 0
        text = raw[kept].tobytes()
        joint = np.cumsum(ends - starts)
        if not _is_text(text, joint):
            number, place = _first_bad(records, starts, ends)
            raise GGUFError(
                f"{what}: string {number} at byte {offset + place} is no UTF-8 text", offset=offset + place
            )
        return cls(text, joint)

    def __len__(self) -> int:
        return self._ends.size

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].decode()

    def __iter__(self) -> Iterator[str]:
        text, start = self._text, 0
        for end in self._ends.tolist():
            yield text[start:end].decode()
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self._text == other._text and np.array_equal(self._ends, other._ends)
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"StringArray([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} strings)"


def _is_text(text: bytes, ends: np.ndarray) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    inside = ends[ends < len(text)]
    return not np.any(np.frombuffer(text, np.uint8)[inside] & 0xC0 == _CONTINUATION)


def _first_bad(records: bytes, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        try:
            records[start:end].decode()
        except UnicodeDecodeError:
            return number, start
    raise AssertionError("every string is UTF-8")
