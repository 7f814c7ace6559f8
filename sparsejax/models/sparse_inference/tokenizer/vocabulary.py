"""The tokens of a GGUF file: texts, scores, kinds, and the ids that mean something to a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError

_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<EOT>")
"""Control tokens that end a turn under these names, whether the metadata say so or not."""


class TokenKind(IntEnum):
    """What ``tokenizer.ggml.token_type`` says of a token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file.

    Attributes:
      texts: by id.
      scores: by id; the higher, the earlier two tokens are merged into it. Empty where merges have a list.
      kinds: by id.
      begin: id put first; None where there is none.
      end: id that ends a text.
      unknown: id for what has no token.
      stops: ids that end generation; ``end`` is one of them.
    """

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[int, ...]
    begin: int | None
    end: int | None
    unknown: int | None
    stops: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def special(self) -> tuple[dict[str, int], dict[str, int]]:
        """Ids by text of control tokens, and of those that users defined; empty texts left out."""
        control, defined = {}, {}
        for token, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True)):
            if text and kind in (TokenKind.CONTROL, TokenKind.UNKNOWN):
                control[text] = token
            elif text and kind == TokenKind.USER_DEFINED:
                defined[text] = token
        return control, defined


def read_vocabulary(
    metadata: Mapping[str, Any],
    *,
    begin: int | None = None,
    end: int | None = None,
    unknown: int | None = None,
) -> Vocabulary:
    """The vocabulary that the metadata of a GGUF file hold.

    Args:
      metadata: of the file.
      begin: id where the metadata give none; likewise the rest.
      end: likewise.
      unknown: likewise.

    Raises:
      MissingKeyError: there are no tokens.
      CorruptFileError: lists of different lengths, or ids beyond them.

    Example:
      >>> metadata = {"tokenizer.ggml.tokens": ["<s>", "a"], "tokenizer.ggml.bos_token_id": 0}
      >>> read_vocabulary(metadata).begin
      0
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise MissingKeyError("the metadata lack 'tokenizer.ggml.tokens'; give token ids instead of text")
    texts = tuple(tokens)
    scores = _column(metadata, "scores", len(texts))
    kinds = _column(metadata, "token_type", len(texts)) or (TokenKind.NORMAL,) * len(texts)
    ids = {
        name: _id(metadata, name, default, len(texts))
        for name, default in (
            ("bos", begin),
            ("eos", end),
            ("unknown", unknown),
            ("eot", None),
            ("eom", None),
        )
    }
    named = [token for token, text in enumerate(texts) if text in _ENDS and kinds[token] == TokenKind.CONTROL]
    stops = dict.fromkeys(end for end in (ids["eos"], ids["eot"], ids["eom"], *named) if end is not None)
    return Vocabulary(texts, scores, tuple(kinds), ids["bos"], ids["eos"], ids["unknown"], tuple(stops))


def flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """A switch of the tokenizer, such as "add_bos_token".

    Example:
      >>> flag({"tokenizer.ggml.add_bos_token": False}, "add_bos_token", True)
      False
    """
    return bool(metadata.get(f"tokenizer.ggml.{name}", default))


def _column(metadata: Mapping[str, Any], name: str, count: int) -> tuple[Any, ...]:
    column: Sequence[Any] = metadata.get(f"tokenizer.ggml.{name}", ())
    values = tuple(column.tolist() if hasattr(column, "tolist") else column)
    if values and len(values) != count:
        raise CorruptFileError(f"tokenizer.ggml.{name} has {len(values)} entries for {count} tokens")
    return values


def _id(metadata: Mapping[str, Any], name: str, default: int | None, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in metadata:
        return default if default is not None and default < count else None
    token = int(metadata[key])
    if not 0 <= token < count:
        raise CorruptFileError(f"{key} is {token}; there are {count} tokens")
    return token
