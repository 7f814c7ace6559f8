"""Windows of packed documents: inputs, next tokens, and which document each token belongs to."""

from __future__ import annotations

import numpy as np

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.text.corpus import Corpus

Window = dict[str, np.ndarray]
"""``inputs``, ``targets`` and ``segment_ids``, each (t,) int32."""


class Windows:
    """Consecutive windows over a corpus; every token but the first is the target of exactly one.

    The first token of a document has nothing before it and is no target; at a change of ``segment_ids`` the
    model forgets.

    Args:
      corpus: packed documents.
      seq_len: inputs per window.
      keep_rest: whether a shorter last window is filled up (the filling is no target) or dropped.

    Raises:
      ValueError: the window is below 1 token, or the text shorter than one window.

    Example:
      >>> corpus = Corpus(np.asarray([5, 6, 7, 8, 9]), np.asarray([0, 2]))
      >>> {name: part.tolist() for name, part in Windows(corpus, 4)[0].items()}
      {'inputs': [5, 6, 7, 8], 'targets': [6, -100, 8, 9], 'segment_ids': [1, 1, 2, 2]}
    """

    def __init__(self, corpus: Corpus, seq_len: int, *, keep_rest: bool = False):
        if seq_len < 1:
            raise ValueError(f"a window has at least 1 token, not {seq_len}")
        targets = len(corpus.tokens) - 1
        needed = 1 if keep_rest else seq_len
        if targets < needed:
            raise ValueError(
                f"a text of {targets + 1} tokens is shorter than one window of {needed + 1}: "
                "give more text or a smaller --seq-len"
            )
        self._corpus, self._length = corpus, seq_len
        self._count = -(-targets // seq_len) if keep_rest else targets // seq_len

    def __len__(self) -> int:
        """Number of windows."""
        return self._count

    def __getitem__(self, number: int) -> Window:
        """A window; `IndexError` ends an iteration."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        start = number * self._length
        tokens = self._corpus.tokens[start : start + self._length + 1].astype(np.int32)
        segments = self._corpus.document(np.arange(start, start + len(tokens)))
        targets = np.where(segments[1:] == segments[:-1], tokens[1:], IGNORED).astype(np.int32)
        missing = (0, self._length - len(targets))
        return {
            "inputs": np.pad(tokens[:-1], missing),
            "targets": np.pad(targets, missing, constant_values=IGNORED),
            "segment_ids": np.pad(segments[:-1], missing),
        }
