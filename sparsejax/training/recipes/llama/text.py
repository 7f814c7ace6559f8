"""The tokenizer of a GGUF file as the readers of training text want it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax.models.sparse_inference.tokenizer.tokenizer import SPACE, Tokenizer, read_tokenizer

_WORD = re.compile(" ?[^ ]*")


class FileTokenizer:
    """The tokenizer in the metadata of a GGUF file, a `sparsejax.training.text.tokenizer.Tokenizer`.

    Documents begin with the token that the file puts first, as prompts do.

    Args:
      metadata: of the file, kept as an attribute.

    Raises:
      CheckpointError: there is no tokenizer that is known.

    Example:
      >>> from sparsejax.training.recipes.llama.vocabulary import vocabulary
      >>> tokenizer = FileTokenizer(vocabulary("bytes", (), 0))
      >>> tokenizer.encode(b"a b").tolist(), tokenizer.decode([1, 100, 259, 101])
      ([1, 100, 259, 101], 'a b')
    """

    def __init__(self, metadata: Mapping[str, Any]):
        self.metadata = metadata
        self.inner: Tokenizer = read_tokenizer(metadata)
        self.vocab_size = self.inner.vocab_size
        self.end = self.inner.vocabulary.end
        self.name = json.dumps({key: _plain(metadata[key]) for key in sorted(metadata) if _is_of_tokens(key)})
        # Where no token goes on behind a space, words are encoded one by one, and each only once.
        by_words = metadata["tokenizer.ggml.model"] == "llama" and not self.inner.add_space
        self._by_words = by_words and not any(SPACE in text[1:] for text in self.inner.vocabulary.texts)
        self._known: dict[str, list[int]] = {}

    def encode(self, document: bytes) -> np.ndarray:
        """Ids (n,) of a document, the begin token first where the file has it so.

        Raises:
          ValueError: it is no UTF-8.
        """
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"is not UTF-8 at byte {error.start}; convert it") from error
        if not self._by_words:
            return np.asarray(self.inner.encode(text, end=False), np.int32)
        ids = self.inner.encode("", end=False)
        for word in _WORD.findall(text):
            if word not in self._known:
                self._known[word] = self.inner.encode(word, begin=False, end=False)
            ids += self._known[word]
        return np.asarray(ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""
        return self.inner.decode(ids)


def _is_of_tokens(key: str) -> bool:
    return key.startswith("tokenizer.")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
