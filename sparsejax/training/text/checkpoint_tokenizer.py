"""Which tokenizer a checkpoint's text has."""

from __future__ import annotations

from pathlib import Path

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.training.text.tokenizer import ByteTokenizer, Tokenizer, read_tokenizer, tokenizer_named

_OF_BYTES = range(256, 513)
"""Vocabularies that are taken for bytes, and marks beside them, where a checkpoint names no tokenizer."""


def tokenizer_of(ck: Checkpoint, path: Path | None = None) -> Tokenizer:
    """The tokenizer given, or the one that a checkpoint names, or that of bytes for a small vocabulary.

    Args:
      ck: of a network that reads tokens.
      path: ``tokenizer.json`` or ``vocab.txt``.

    Raises:
      ValueError: the file is no tokenizer, one is needed, or it does not fit the network; one line.
      ModuleNotFoundError: the ``tokenizers`` library is missing (extra ``text``).

    Example:
      >>> from types import SimpleNamespace
      >>> tokenizer_of(Checkpoint("ten", "modern", SimpleNamespace(vocab_size=258), {})).name
      'bytes'
    """
    named = ck.metadata.get("tokenizer")
    if path is not None:
        found = read_tokenizer(path)
    elif isinstance(named, str):
        found = tokenizer_named(named)
    elif (size := getattr(ck.config, "vocab_size", None)) in _OF_BYTES:
        return ByteTokenizer()
    else:
        told = "" if size is None else f", and its vocabulary of {size} tokens is not that of bytes"
        raise ValueError(
            f"the checkpoint names no tokenizer{told}: give its tokenizer.json or vocab.txt with --tokenizer"
        )
    check_vocabulary(found, ck)
    return found


def check_vocabulary(tokenizer: Tokenizer, ck: Checkpoint) -> None:
    """See that a network knows all tokens of a tokenizer; that of bytes may have marks that it lacks.

    Raises:
      ValueError: it does not; one line.
    """
    size = getattr(ck.config, "vocab_size", tokenizer.vocab_size)
    if tokenizer.vocab_size > size and not isinstance(tokenizer, ByteTokenizer):
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the network {size}")
