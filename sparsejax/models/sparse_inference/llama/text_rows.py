"""Text or tokens of any lengths as batches of a few shapes, for passes over whole sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparsejax.models.sparse_inference.llama.source import tokenizer_of
from sparsejax.ops.prompts import read_prompts

_LEAST_LENGTH = 16
_TOKENS = 4096
_LOGITS = 1 << 27


def token_rows(source: Any, tokens: Any, *, vocab_size: int, context: int) -> list[np.ndarray]:
    """Sequences of at most ``context`` tokens.

    Args:
      source: a checkpoint, whose tokenizer cuts text.
      tokens: one text or sequence of ids, or several; whatever is longer than the context is cut into pieces,
        each read from its beginning.
      vocab_size: ids are below it.
      context: tokens of a row at most.

    Raises:
      ValueError: no tokens, ids beyond the vocabulary, or text and no tokenizer.

    Example:
      >>> [row.tolist() for row in token_rows(None, [1, 2, 3, 4, 5], vocab_size=9, context=2)]
      [[1, 2], [3, 4], [5]]
    """
    rows = list(tokens) if isinstance(tokens, list | tuple) else tokens
    if isinstance(tokens, str) or (isinstance(rows, list) and any(isinstance(row, str) for row in rows)):
        tokenizer = tokenizer_of(source)
        if tokenizer is None:
            raise ValueError("there is text and no tokenizer is known; give token ids")
        texts = [tokens] if isinstance(tokens, str) else rows
        rows = [tokenizer.encode(row) if isinstance(row, str) else row for row in texts]
    elif np.size(rows[:1]) == 1 and np.ndim(rows[0]) == 0:
        rows = [rows]
    batch = read_prompts(rows, vocab_size)
    whole = [row[start:] for row, start in zip(batch.tokens, batch.starts, strict=True)]
    return [row[begin : begin + context] for row in whole for begin in range(0, len(row), context)]


def batches(rows: list[np.ndarray], *, vocab_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows in batches: tokens (b, t), and how many (b,) of each row are no padding.

    Args:
      rows: of tokens.
      vocab_size: bounds the memory of logits.

    Example:
      >>> [(tokens.shape, counts.tolist()) for tokens, counts in batches([np.arange(3)] * 3, vocab_size=9)]
      [((4, 16), [3, 3, 3, 0])]
    """
    longest = max(map(len, rows))
    length = max(_LEAST_LENGTH, 1 << (longest - 1).bit_length())
    most = max(1, min(_TOKENS, _LOGITS // vocab_size) // length)
    size = min(most, 1 << (len(rows) - 1).bit_length())
    for begin in range(0, len(rows), size):
        tokens, counts = np.zeros((size, length), np.int32), np.zeros(size, np.int32)
        for place, row in enumerate(rows[begin : begin + size]):
            tokens[place, : len(row)], counts[place] = row, len(row)
        yield tokens, counts
