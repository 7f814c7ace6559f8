"""Byte-level BPE with the pre-tokenizers that GGUF files name, through the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from sparsejax.checkpoint.errors import CorruptFileError, UnknownFormatError, shown

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"


class PreTokenizer(NamedTuple):
    """How a text is cut before pairs are merged.

    Attributes:
      patterns: one after the other, each cuts what the one before has left.
      whole_words: a cut that is a token stays one, whatever the merges say.
      add_begin: the begin token comes first unless the metadata say otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_begin: bool = False


_LLAMA3 = PreTokenizer((rf"{_ENGLISH}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",), True, True)
_QWEN2 = PreTokenizer((rf"{_ENGLISH}|{_LEAD}\p{{L}}+|\p{{N}}|{_REST}",))
_DIGITS = PreTokenizer((r"\p{N}", _GPT2))
_TEKKEN = PreTokenizer(
    (
        rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    True,
    True,
)
_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

PRE_TOKENIZERS = {
    "default": _DEFAULT,
    "gpt-2": PreTokenizer((_GPT2,)),
    "phi-2": PreTokenizer((_GPT2,)),
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "tekken": _TEKKEN,
}
"""By the name under ``tokenizer.ggml.pre``. Source: the published tokenizers of the models of that name."""


def pre_tokenizer(name: str | None) -> PreTokenizer:
    """The pre-tokenizer of a name.

    Raises:
      UnknownFormatError: there is none of this name; names it and those there are.

    Example:
      >>> pre_tokenizer("llama-bpe").add_begin
      True
    """
    if name is None:
        raise UnknownFormatError(
            "the metadata lack 'tokenizer.ggml.pre', as those of old files do; tell it, such as "
            f'pre="llama-bpe": one of {shown(PRE_TOKENIZERS, 20)}'
        )
    if name not in PRE_TOKENIZERS:
        raise UnknownFormatError(
            f"the pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known; those that are: "
            f"{shown(PRE_TOKENIZERS, 20)}; give token ids instead of text"
        )
    return PRE_TOKENIZERS[name]


def byte_level_encoder(
    texts: Sequence[str], merges: Sequence[str], rules: PreTokenizer
) -> Callable[[str], list[int]]:
    """A function from text to token ids.

    Args:
      texts: of the tokens, by id; bytes are spelled as `byte_characters` says.
      merges: "left right", the earlier the sooner.
      rules: how texts are cut first.

    Raises:
      CorruptFileError: merges and tokens do not fit.
      ModuleNotFoundError: the library is missing (extra ``text``).

    Example:
      >>> encode = byte_level_encoder(["a", "b", "ab"], ["a b"], pre_tokenizer("gpt-2"))
      >>> encode("aba")
      [2, 0]
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    pairs = [(merge[:at], merge[at + 1 :]) for merge in merges if (at := merge.find(" ", 1)) > 0]
    if len(pairs) != len(merges):
        raise CorruptFileError("tokenizer.ggml.merges has an entry without the space between its two tokens")
    vocabulary = {text: token for token, text in enumerate(texts)}
    try:
        model = models.BPE(vocabulary, pairs, ignore_merges=rules.whole_words)
    except Exception as error:  # the library raises nothing narrower
        raise CorruptFileError(f"tokens and merges of the file do not fit: {error}") from error
    library = Tokenizer(model)
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )

    def encode(text: str) -> list[int]:
        return library.encode(text, add_special_tokens=False).ids

    return encode


@cache
def byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for.

    Example:
      >>> table = byte_characters()
      >>> len(table), table["A"], table["Ġ"]
      (256, 65, 32)

    Source: Radford et al. 2019, GPT-2.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
