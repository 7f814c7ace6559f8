"""Local files as one stream of tokens that knows where its documents begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsejax.training.text.tokenizer import Tokenizer

SPLIT_BY_DOCUMENT = 20
"""With fewer documents than this, the tail of the stream is held out instead of whole documents."""


class Corpus(NamedTuple):
    """Documents, one after another.

    Attributes:
      tokens: (n,) ids in the smallest unsigned type that holds the vocabulary; each document is followed by
        the tokenizer's end, if it has one.
      starts: (documents,) where each begins, the first at 0.
    """

    tokens: np.ndarray
    starts: np.ndarray

    def document(self, positions: np.ndarray) -> np.ndarray:
        """Number of the document, from 1, at each position."""
        return np.searchsorted(self.starts, positions, side="right").astype(np.int32)


def read_corpus(path: Path, tokenizer: Tokenizer, *, pattern: str = "*.txt", separator: str = "") -> Corpus:
    """Read a file, or all files of a folder and those below it, in the order of their names.

    Args:
      path: file or folder.
      tokenizer: for the text.
      pattern: names of a folder's files.
      separator: text between the documents of a file, dropped; nothing if a file is a document.

    Returns:
      `Corpus`; documents without a byte but white space are left out.

    Raises:
      ValueError: there is no such file, none matches, nothing is in them, or one does not suit the
        tokenizer; one line.

    Example:
      >>> import tempfile
      >>> from sparsejax.training.text.tokenizer import ByteTokenizer
      >>> path = Path(tempfile.mkdtemp()) / "two.txt"
      >>> _ = path.write_text("ab|c")
      >>> corpus = read_corpus(path, ByteTokenizer(), separator="|")
      >>> corpus.tokens.tolist(), corpus.starts.tolist()
      ([97, 98, 256, 99, 256], [0, 3])
    """
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    end = [] if tokenizer.end is None else [np.asarray([tokenizer.end], dtype)]
    parts: list[np.ndarray] = []
    starts, length = [], 0
    for document in documents(path, pattern=pattern, separator=separator):
        try:
            ids = tokenizer.encode(document.content)
        except ValueError as error:
            raise ValueError(f"{document.file}: {error}") from error
        starts.append(length)
        parts += [ids.astype(dtype), *end]
        length += len(ids) + len(end)
    if not parts:
        raise ValueError(f"{path}: holds no text")
    return Corpus(np.concatenate(parts), np.asarray(starts, np.int64))


def split(corpus: Corpus, fraction: float, *, seed: int = 0) -> tuple[Corpus, Corpus]:
    """Training and held-out part: whole documents drawn at random, or of few documents the tail.

    Args:
      corpus: to divide.
      fraction: of its tokens to hold out, about.
      seed: of the draw.

    Returns:
      training part, held-out part.

    Raises:
      ValueError: the fraction is not between 0 and 1, or leaves one part empty.

    Example:
      >>> corpus = Corpus(np.arange(10), np.asarray([0, 4]))
      >>> [part.tokens.tolist() for part in split(corpus, 0.2)]
      [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the held-out fraction must be between 0 and 1, not {fraction}")
    if len(corpus.starts) < SPLIT_BY_DOCUMENT:
        return _cut(corpus, len(corpus.tokens) - round(fraction * len(corpus.tokens)))
    order = np.random.default_rng(seed).permutation(len(corpus.starts))
    lengths = np.diff(corpus.starts, append=len(corpus.tokens))
    held_out = np.zeros(len(order), bool)
    # Those that begin before the fraction is reached, and never all.
    held_out[order[:-1]] = (np.cumsum(lengths[order]) - lengths[order] < fraction * len(corpus.tokens))[:-1]
    return _chosen(corpus, lengths, ~held_out), _chosen(corpus, lengths, held_out)


class Document(NamedTuple):
    """A part of a file.

    Attributes:
      file: that it is from.
      content: its bytes, not only white space.
    """

    file: Path
    content: bytes

    def text(self) -> str:
        """Its characters.

        Raises:
          ValueError: it is no UTF-8; one line.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file}: is not UTF-8 at byte {error.start}; convert it") from error


def documents(path: Path, *, pattern: str = "*.txt", separator: str = "") -> Iterator[Document]:
    """Documents of a file, or of all files of a folder and those below it, file by file.

    Args:
      path: file or folder.
      pattern: names of a folder's files.
      separator: text between the documents of a file, dropped; nothing if a file is a document.

    Raises:
      ValueError: there is no such file, none matches, or one cannot be read; one line.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "two.txt"
      >>> _ = path.write_text("one|two| ")
      >>> [document.text() for document in documents(path, separator="|")]
      ['one', 'two']
    """
    for file in text_files(path, pattern):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
        for part in content.split(separator.encode()) if separator else [content]:
            if part.strip():
                yield Document(file, part)


def text_files(path: Path, pattern: str) -> Sequence[Path]:
    """A file, or all files of a folder and those below it, in the order of their names.

    Raises:
      ValueError: there are none; one line.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such file or folder")
    found = sorted(file for file in path.rglob(pattern) if file.is_file())
    if not found:
        raise ValueError(f"{path}: no file in it is called {pattern}; give other names with --pattern")
    return found


def _cut(corpus: Corpus, position: int) -> tuple[Corpus, Corpus]:
    if not 0 < position < len(corpus.tokens):
        raise ValueError(
            f"a text of {len(corpus.tokens)} tokens is too short to hold out a part of it: give more text"
        )
    later = corpus.starts[corpus.starts > position] - position
    before = Corpus(corpus.tokens[:position], corpus.starts[corpus.starts < position])
    return before, Corpus(corpus.tokens[position:], np.concatenate([[0], later]))


def _chosen(corpus: Corpus, lengths: np.ndarray, chosen: np.ndarray) -> Corpus:
    starts = np.cumsum(lengths[chosen]) - lengths[chosen]
    return Corpus(corpus.tokens[np.repeat(chosen, lengths)], starts)
