"""Prompts of any lengths as calls of a few shapes: padded on the left, cut into segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_LEAST_BUCKET = 16


class Prompts(NamedTuple):
    """Prompts of a batch, ending together.

    Attributes:
      tokens: (b, t) int32 ids; zeros before a row's prompt.
      starts: (b,) where each row's prompt begins.
    """

    tokens: np.ndarray
    starts: np.ndarray

    def seen(self, vocab_size: int) -> np.ndarray:
        """(b, v) whether a row's prompt has the token."""
        found = np.zeros((len(self.tokens), vocab_size), bool)
        rows, steps = np.nonzero(np.arange(self.tokens.shape[1]) >= self.starts[:, None])
        found[rows, self.tokens[rows, steps]] = True
        return found


class Segment(NamedTuple):
    """One call of the model over a part of the prompts.

    Attributes:
      tokens: (b, s) int32.
      segment_ids: (b, s) int32, 1 for tokens of a prompt and 0 for padding; None where there is none.
      is_new: (b,) bool, whether the row has read no token of its prompt before.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray | None
    is_new: np.ndarray


def read_prompts(prompts: Any, vocab_size: int) -> Prompts:
    """Prompts as one array.

    Args:
      prompts: (b, t) integers, or a list of token sequences.
      vocab_size: ids are below it.

    Raises:
      ValueError: no row, an empty one, or ids that are not of the vocabulary.

    Example:
      >>> read_prompts([[1, 2, 3], [4]], 5)
      Prompts(tokens=array([[1, 2, 3],
             [0, 0, 4]], dtype=int32), starts=array([0, 2]))
    """
    if not hasattr(prompts, "__len__") or isinstance(prompts, str | bytes):
        raise ValueError(
            "prompts must be an array of token ids (batch, time) or a list of token sequences, "
            f"not {type(prompts).__name__}"
        )
    rows = [np.asarray(row) for row in prompts]
    if not rows:
        raise ValueError("no prompt: give at least one row of token ids")
    for number, row in enumerate(rows):
        _check_row(row, number, vocab_size)
    longest = max(map(len, rows))
    tokens = np.zeros((len(rows), longest), np.int32)
    for padded, row in zip(tokens, rows, strict=True):
        padded[longest - len(row) :] = row
    return Prompts(tokens, np.array([longest - len(row) for row in rows]))


def cut(prompts: Prompts, size: int) -> Iterator[Segment]:
    """Segments to read in order: all of ``size`` tokens but the first, which is filled to a power of two.

    Args:
      prompts: of a batch.
      size: tokens per call at most.

    Example:
      >>> [part.tokens.shape for part in cut(read_prompts([range(85)], 100), 32)]
      [(1, 32), (1, 32), (1, 32)]
      >>> [part.tokens.shape for part in cut(read_prompts([range(69)], 100), 32)]
      [(1, 16), (1, 32), (1, 32)]
    """
    longest = prompts.tokens.shape[1]
    rest = longest % size
    padding = _bucket(rest, size) - rest if rest else 0
    tokens = np.pad(prompts.tokens, ((0, 0), (padding, 0)))
    starts = prompts.starts + padding
    real = np.arange(tokens.shape[1]) >= starts[:, None]
    edges = range((padding + rest) or size, tokens.shape[1] + 1, size)
    for begin, end in zip((0, *edges), edges, strict=False):
        mask = real[:, begin:end]
        ids = None if mask.all() else mask.astype(np.int32)
        yield Segment(tokens[:, begin:end], ids, starts >= begin)


def _bucket(count: int, most: int) -> int:
    return min(most, max(_LEAST_BUCKET, 1 << (count - 1).bit_length()))


def _check_row(row: np.ndarray, number: int, vocab_size: int) -> None:
    if row.ndim != 1:
        what = "a single number" if row.ndim == 0 else f"an array of shape {row.shape}"
        raise ValueError(f"prompt {number} is {what}; prompts are (batch, time) or a list of token sequences")
    if not row.size:
        raise ValueError(f"prompt {number} is empty; give at least one token per row")
    if row.dtype.kind not in "iu":
        raise ValueError(f"prompt {number} holds {row.dtype}; token ids are integers")
    if row.min() < 0 or row.max() >= vocab_size:
        raise ValueError(
            f"prompt {number} has token ids from {row.min()} to {row.max()}; "
            f"this vocabulary has 0 to {vocab_size - 1}"
        )
