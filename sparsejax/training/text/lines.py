"""Lines of text files, each a row of token ids between two marks, as masked language models read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sparsejax.training.text.corpus import documents
from sparsejax.training.text.packing import Window
from sparsejax.training.text.special import SpecialIds
from sparsejax.training.text.tokenizer import Tokenizer

_MARKS = 2  # [CLS] and [SEP]


def read_lines(path: Path, *, pattern: str = "*.txt") -> list[str]:
    r"""Lines that are not empty, of a file or of all files of a folder and those below it.

    Args:
      path: file or folder.
      pattern: names of a folder's files.

    Raises:
      ValueError: there is no such file, none matches, one is no UTF-8, or nothing is in them; one line.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "text.txt"
      >>> _ = path.write_text("one\n\n two ")
      >>> read_lines(path)
      ['one', 'two']
    """
    lines = []
    for document in documents(path, pattern=pattern):
        # By line feeds alone: splitlines also takes characters that occur within lines.
        lines += [stripped for line in document.text().split("\n") if (stripped := line.strip())]
    if not lines:
        raise ValueError(f"{path}: holds no text")
    return lines


def split_lines(lines: Sequence[str], fraction: float, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Training and held-out lines, drawn at random, at least one each; both in their order.

    Args:
      lines: to divide.
      fraction: of them to hold out.
      seed: of the draw.

    Raises:
      ValueError: the fraction is not between 0 and 1, or there is one line only.

    Example:
      >>> split_lines(["a", "b", "c", "d"], 0.25)
      (['a', 'b', 'd'], ['c'])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the held-out fraction must be between 0 and 1, not {fraction}")
    if len(lines) < 2:
        raise ValueError("a text of one line is too short to hold out a part of it: give more text")
    count = min(len(lines) - 1, max(1, round(fraction * len(lines))))
    held_out = np.zeros(len(lines), bool)
    held_out[np.random.default_rng(seed).permutation(len(lines))[:count]] = True
    training = [line for line, out in zip(lines, held_out, strict=True) if not out]
    return training, [line for line, out in zip(lines, held_out, strict=True) if out]


class TokenRows:
    """Rows of token ids, ``[CLS] ids [SEP]`` and padding: entries ``tokens`` (t,) and ``number`` ().

    Args:
      lines: of text.
      tokenizer: for them.
      special: ids of the marks.
      seq_len: tokens per row, marks included.
      cut: the end of a longer line is dropped, as published; else it goes on in the next row.

    Raises:
      ValueError: there is no room between the marks, or no line has a token.
    """

    def __init__(
        self,
        lines: Iterable[str],
        tokenizer: Tokenizer,
        special: SpecialIds,
        *,
        seq_len: int,
        cut: bool = False,
    ):
        room = seq_len - _MARKS
        if room < 1:
            raise ValueError(f"a row of {seq_len} tokens has no room between its two marks")
        parts = list(_parts((tokenizer.encode(line.encode()) for line in lines), room, cut))
        if not parts:
            raise ValueError("no line of the text has a token")
        self._ids = np.concatenate(parts).astype(np.min_scalar_type(tokenizer.vocab_size - 1))
        self._starts = np.cumsum([0, *map(len, parts)])
        self._special, self._length = special, seq_len

    @property
    def tokens(self) -> int:
        """Of all rows, marks and padding left out."""
        return len(self._ids)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All ids, and where each row begins, for checksums."""
        return self._ids, self._starts

    @property
    def blank(self) -> Window:
        """A row of padding."""
        tokens = np.full(self._length, self._special.pad, np.int32)
        return {"tokens": tokens, "number": np.asarray(0, np.int32)}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Window:
        """A row; `IndexError` ends an iteration."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        ids = self._ids[self._starts[number] : self._starts[number + 1]]
        row = np.full(self._length, self._special.pad, np.int32)
        row[0], row[1 : len(ids) + 1], row[len(ids) + 1] = self._special.cls, ids, self._special.sep
        return {"tokens": row, "number": np.asarray(number, np.int32)}


def _parts(lines: Iterator[np.ndarray], room: int, cut: bool) -> Iterator[np.ndarray]:
    for ids in lines:
        for start in range(0, min(len(ids), room if cut else len(ids)), room):
            yield ids[start : start + room]
