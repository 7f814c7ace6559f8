"""Token ids: those that a language model can look up, and what stands where none counts."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

IGNORED = -100
"""Stands for an id where a target or label does not count, as in torch."""


def check_token_ids(tokens: Any, vocab_size: int) -> None:
    """Refuse what is no batch of sequences of ids of a vocabulary.

    Args:
      tokens: (b, t) of integers, at least one per row; values are looked at unless they are traced.
      vocab_size: ids are below it.

    Raises:
      ValueError: says what is needed.

    Example:
      >>> check_token_ids(np.array([[0, 4]]), 5)
    """
    if not isinstance(tokens, np.ndarray | jax.Array):
        raise ValueError(f"tokens are a {type(tokens).__name__}; an array of integers (b, t) is needed")
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens are {tokens.dtype}; integers are needed")
    if tokens.ndim != 2:
        raise ValueError(f"tokens of shape {tokens.shape} do not fit: (b, t) is needed")
    if tokens.shape[1] == 0:
        raise ValueError("an empty sequence: at least one token is needed")
    if not tokens.size or isinstance(tokens, jax.core.Tracer):
        return
    values = np.asarray(tokens)  # a constant may be looked at while another jit traces
    least, largest = int(values.min()), int(values.max())
    if least < 0 or largest >= vocab_size:
        raise ValueError(f"token ids go from {least} to {largest}; this vocabulary has 0 to {vocab_size - 1}")
