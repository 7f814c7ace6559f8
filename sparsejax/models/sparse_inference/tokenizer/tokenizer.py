"""Text to token ids and back, by what the metadata of a GGUF file say."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sparsejax.checkpoint.errors import MissingKeyError, UnknownFormatError
from sparsejax.models.sparse_inference.tokenizer.byte_level import (
    byte_characters,
    byte_level_encoder,
    pre_tokenizer,
)
from sparsejax.models.sparse_inference.tokenizer.merges import merge_by_score
from sparsejax.models.sparse_inference.tokenizer.partition import partition
from sparsejax.models.sparse_inference.tokenizer.vocabulary import (
    TokenKind,
    Vocabulary,
    flag,
    read_vocabulary,
)

SPACE = "▁"
"""How vocabularies of the kind "llama" spell a space."""

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


class Tokenizer:
    """A vocabulary with its rules; `read_tokenizer` makes it.

    Args:
      vocabulary: of the file.
      encode_raw: text without special tokens -> ids.
      spell: (text, kind) of a normal token -> the bytes it stands for.
      add_begin: `encode` puts the begin token first.
      add_end: `encode` puts the end token last.
      add_space: a text is read as if a space came before it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        encode_raw: Callable[[str], list[int]],
        spell: Callable[[str, int], bytes],
        *,
        add_begin: bool,
        add_end: bool,
        add_space: bool,
    ):
        self.vocabulary = vocabulary
        self.add_begin = add_begin
        self.add_end = add_end
        self.add_space = add_space
        self._encode_raw = encode_raw
        self._spell = spell
        self._control, self._defined = vocabulary.special()

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return len(self.vocabulary)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids that end generation."""
        return self.vocabulary.stops

    def encode(
        self, text: str, *, begin: bool | None = None, end: bool | None = None, special: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
          text: any; lone surrogates become "?".
          begin: put the begin token first; None does as the file says.
          end: put the end token last; None does as the file says.
          special: "<s>" and the like in the text are those tokens; else they are letters, so that a text
            from elsewhere cannot end a turn. Tokens that the file's makers defined are found in any case.

        Raises:
          ValueError: ``begin`` or ``end`` is asked for and the file has no such token.
        """
        clean = text.encode("utf-8", "replace").decode("utf-8")
        whole = {**self._control, **self._defined} if special else self._defined
        ids: list[int] = []
        if self.add_begin if begin is None else begin:
            ids.append(_there(self.vocabulary.begin, "begin (bos_token_id)"))
        fresh = True
        for part in partition(clean, whole):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encode_raw(f" {part}" if self.add_space and fresh else part)
            fresh = isinstance(part, int)
        if self.add_end if end is None else end:
            ids.append(_there(self.vocabulary.end, "end (eos_token_id)"))
        return ids

    def decode(self, tokens: Iterable[int], *, special: bool = False, continues: bool = False) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD.

        Args:
          tokens: ids.
          special: spell control tokens out instead of leaving them away.
          continues: the tokens follow others: a space at their start belongs to the text.
        """
        spelled = b"".join(self.token_bytes(token, special=special) for token in tokens)
        if self.add_space and not continues and spelled.startswith(b" "):
            spelled = spelled[1:]
        return spelled.decode("utf-8", "replace")

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """What one token stands for, which may be a part of a character.

        Args:
          token: id.
          special: spell control tokens out.

        Raises:
          ValueError: there is no such token.
        """
        token = int(token)
        if not 0 <= token < len(self.vocabulary):
            raise ValueError(f"no token {token}; this vocabulary has the ids 0 to {len(self.vocabulary) - 1}")
        text, kind = self.vocabulary.texts[token], self.vocabulary.kinds[token]
        if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN):
            return text.encode() if special else b""
        return text.encode() if kind == TokenKind.USER_DEFINED else self._spell(text, kind)

    def text_stream(self, *, special: bool = False) -> TextStream:
        """A decoder of tokens one at a time, as they are generated."""
        return TextStream(self, special=special)


class TextStream:
    """Text as its tokens come: what they have of an unfinished character waits for the rest of it.

    Args:
      tokenizer: of the tokens.
      special: spell control tokens out.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False):
        self._tokenizer = tokenizer
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that this token completes; often one word, or nothing yet."""
        return self._decoder.decode(self._tokenizer.token_bytes(token, special=self._special))

    def finish(self) -> str:
        """U+FFFD where the last character was never completed, else nothing."""
        return self._decoder.decode(b"", final=True)


def read_tokenizer(metadata: Mapping[str, Any], *, pre: str | None = None) -> Tokenizer:
    """The tokenizer in the metadata of a GGUF file.

    Args:
      metadata: of the file.
      pre: the pre-tokenizer, for files whose metadata do not name it.

    Raises:
      UnknownFormatError: a kind of tokenizer, or a pre-tokenizer, that is not known; names it.
      MissingKeyError: there is no tokenizer.
      CorruptFileError: its parts contradict each other.
      ModuleNotFoundError: it needs the ``tokenizers`` library (extra ``text``).

    Example:
      >>> tokens = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"]
      >>> metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens}
      >>> metadata["tokenizer.ggml.scores"] = [0.0, 0.0, 0.0, -2.0, -3.0, -1.0]
      >>> metadata["tokenizer.ggml.token_type"] = [2, 3, 3, 1, 1, 1]
      >>> tokenizer = read_tokenizer(metadata)
      >>> tokenizer.encode("a a"), tokenizer.decode([1, 5, 5])
      ([1, 5, 5], 'a a')

    Source: specs/sparse_inference.md section 13.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(metadata, pre)
    if kind == "llama":
        return _sentence_piece(metadata)
    if kind is None:
        raise MissingKeyError("the metadata lack 'tokenizer.ggml.model'; give token ids instead of text")
    raise UnknownFormatError(
        f"the tokenizer {kind!r} (tokenizer.ggml.model) is not supported; those that are: 'llama', 'gpt2'; "
        "give token ids instead of text"
    )


def _sentence_piece(metadata: Mapping[str, Any]) -> Tokenizer:
    vocabulary = read_vocabulary(metadata, begin=1, end=2, unknown=0)
    ids = {text: token for token, text in enumerate(vocabulary.texts)}
    scores = vocabulary.scores or (0.0,) * len(vocabulary)

    def encode(text: str) -> list[int]:
        pieces = merge_by_score(text.replace(" ", SPACE), ids, scores)
        found = ((piece, ids.get(piece)) for piece in pieces)
        return [
            number
            for piece, token in found
            for number in ((token,) if token is not None else _byte_tokens(piece, ids, vocabulary))
        ]

    return Tokenizer(
        vocabulary,
        encode,
        _spell_sentence_piece,
        add_begin=flag(metadata, "add_bos_token", True),
        add_end=flag(metadata, "add_eos_token", False),
        add_space=flag(metadata, "add_space_prefix", True),
    )


def _byte_tokens(piece: str, ids: Mapping[str, int], vocabulary: Vocabulary) -> Sequence[int]:
    """A character without a token as those of its bytes, or as the unknown one."""
    found = [ids.get(f"<0x{byte:02X}>") for byte in piece.encode()]
    known = [token for token in found if token is not None]
    if len(known) == len(found):
        return known
    return [_there(vocabulary.unknown, f"unknown (unknown_token_id), which {piece!r} needs")]


def _spell_sentence_piece(text: str, kind: int) -> bytes:
    if kind == TokenKind.BYTE and _BYTE.fullmatch(text):
        return bytes([int(text[3:-1], 16)])
    return text.replace(SPACE, " ").encode()


def _byte_level(metadata: Mapping[str, Any], pre: str | None) -> Tokenizer:
    rules = pre_tokenizer(pre or metadata.get("tokenizer.ggml.pre"))
    vocabulary = read_vocabulary(metadata)
    merges = tuple(metadata.get("tokenizer.ggml.merges", ()))
    return Tokenizer(
        vocabulary,
        byte_level_encoder(vocabulary.texts, merges, rules),
        _spell_byte_level,
        add_begin=flag(metadata, "add_bos_token", rules.add_begin and vocabulary.begin is not None),
        add_end=flag(metadata, "add_eos_token", False),
        add_space=False,
    )


def _spell_byte_level(text: str, kind: int) -> bytes:
    del kind
    table = byte_characters()
    return bytes(table[char] for char in text) if all(char in table for char in text) else text.encode()


def _there(token: int | None, what: str) -> int:
    if token is None:
        raise ValueError(f"the file's vocabulary has no token for {what}")
    return token
