"""Text to token ids: bytes, or any file of the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")


class Tokenizer(Protocol):
    """What turns documents into ids and back.

    Attributes:
      vocab_size: ids are below it.
      end: id after each document; None if the vocabulary has none.
      name: text that `tokenizer_named` makes the tokenizer from again.
    """

    vocab_size: int
    end: int | None
    name: str

    def encode(self, document: bytes) -> np.ndarray:
        """Ids (n,) of a document, without the end."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""
        ...


class ByteTokenizer:
    """Every byte is a token: ids 0 to 255, then 256 for the end of a document and 257 for padding.

    Takes any file, whatever its encoding; needs no vocabulary.

    Example:
      >>> tokenizer = ByteTokenizer()
      >>> tokenizer.encode("né".encode()).tolist(), tokenizer.decode([110, 195, 169, 256])
      ([110, 195, 169], 'né')
    """

    vocab_size = 258
    end: int | None = 256
    name = "bytes"

    def encode(self, document: bytes) -> np.ndarray:
        """Ids (n,) of a document."""
        return np.frombuffer(document, np.uint8)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; bytes that are no UTF-8 become the replacement character."""
        return bytes(int(token) for token in ids if token < 256).decode("utf-8", errors="replace")


class JsonTokenizer:
    """A tokenizer of the ``tokenizers`` library.

    Args:
      name: the contents of its ``tokenizer.json``.

    Raises:
      ValueError: they are not such a file.
      ModuleNotFoundError: the library is missing (extra ``text``).
    """

    def __init__(self, name: str):
        from tokenizers import Tokenizer as Library

        self.name = name
        try:
            self._library: Any = Library.from_str(name)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"is no tokenizer of the tokenizers library: {error}") from error
        self.vocab_size = int(self._library.get_vocab_size(with_added_tokens=True))
        known = (self._library.token_to_id(token) for token in _END_TOKENS)
        self.end: int | None = next((token for token in known if token is not None), None)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token."""
        ids: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        return ids

    @property
    def special(self) -> frozenset[int]:
        """Ids of the tokens that the file declares to be no words."""
        added = self._library.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    def encode(self, document: bytes) -> np.ndarray:
        """Ids (n,) of a document.

        Raises:
          ValueError: it is no UTF-8.
        """
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"is not UTF-8 at byte {error.start}; convert it, or leave --tokenizer away to read bytes"
            ) from error
        return np.asarray(self._library.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special ones left out."""
        text: str = self._library.decode([int(token) for token in ids], skip_special_tokens=True)
        return text

    def token(self, number: int) -> str:
        """The token of an id, as the vocabulary has it; "" beyond it."""
        return self._library.id_to_token(int(number)) or ""


def read_tokenizer(path: Path | None) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json`` or a WordPiece ``vocab.txt``; that of bytes if there is no file.

    Raises:
      ValueError: the file is missing or is no tokenizer; one line.
      ModuleNotFoundError: the library is missing (extra ``text``).

    Example:
      >>> read_tokenizer(None).vocab_size
      258
    """
    if path is None:
        return ByteTokenizer()
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".txt":
            json.loads(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is no tokenizer.json: {error}") from error
    try:
        return JsonTokenizer(_from_vocabulary(text) if path.suffix == ".txt" else text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def tokenizer_named(name: str) -> Tokenizer:
    """The tokenizer that a checkpoint's metadata name: "bytes", or the contents of a ``tokenizer.json``.

    Raises:
      ValueError: neither.
      ModuleNotFoundError: the library is missing (extra ``text``).

    Example:
      >>> tokenizer_named("bytes").end
      256
    """
    return ByteTokenizer() if name == ByteTokenizer.name else JsonTokenizer(name)


def _from_vocabulary(text: str) -> str:
    from sparsejax.training.text.wordpiece import wordpiece_from_vocabulary

    return wordpiece_from_vocabulary(text.replace("\r\n", "\n").rstrip("\n").split("\n"))
