"""Vocabularies for GGUF files, as their metadata: all bytes, or pieces of words trained from a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sparsejax.models.sparse_inference.tokenizer.tokenizer import SPACE

Kind = Literal["bytes", "llama", "gpt2"]

_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_END = "<|endoftext|>"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # tokenizer.ggml.token_type
_MOST_CHARACTERS = 256


def vocabulary(kind: Kind, texts: Iterable[str], vocab_size: int) -> dict[str, Any]:
    """Metadata of a GGUF file that make a tokenizer.

    Args:
      kind: "bytes" has a token per byte and one for the space; "llama" pieces of words merged by score, bytes
        for rare characters; "gpt2" pieces of words made of bytes, merged by a list.
      texts: documents to train pieces from; not read for "bytes". The same texts give the same pieces.
      vocab_size: tokens at most; not read for "bytes".

    Raises:
      ValueError: there is no room for pieces of words.
      ModuleNotFoundError: the library tokenizers, the extra ``text``, is missing.

    Example:
      >>> made = vocabulary("bytes", (), 0)
      >>> len(made["tokenizer.ggml.tokens"]), made["tokenizer.ggml.tokens"][-1]
      (260, '▁')
      >>> len(vocabulary("gpt2", ["to be or not to be"] * 9, 260)["tokenizer.ggml.merges"])
      3
    """
    if kind == "bytes":
        return _by_score([SPACE])
    least = len(_SPECIAL) + len(_BYTES) + 1 if kind == "llama" else len(_BYTES) + 1
    if vocab_size <= least:
        raise ValueError(f"a vocabulary of {vocab_size} has no room beside {least} bytes and special tokens")
    if kind == "llama":
        return _by_score(_pieces(texts, vocab_size - len(_SPECIAL) - len(_BYTES)))
    return _by_merges(*_merges(texts, vocab_size - 1))


def _by_score(pieces: Sequence[str]) -> dict[str, Any]:
    tokens = [*_SPECIAL, *_BYTES, *pieces]
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * len(_BYTES), *[_NORMAL] * len(pieces)]
    scores = [0.0] * (len(_SPECIAL) + len(_BYTES)) + [-float(rank) for rank in range(len(pieces))]
    return _metadata(
        model="llama",
        tokens=tokens,
        token_type=types,
        scores=scores,
        bos_token_id=1,
        eos_token_id=2,
        unknown_token_id=0,
        add_space_prefix=False,
    )


def _by_merges(tokens: Sequence[str], merges: Sequence[str]) -> dict[str, Any]:
    return _metadata(
        model="gpt2",
        pre="gpt-2",
        tokens=[*tokens, _END],
        token_type=[*[_NORMAL] * len(tokens), _CONTROL],
        merges=list(merges),
        bos_token_id=len(tokens),
        eos_token_id=len(tokens),
    )


def _metadata(**values: Any) -> dict[str, Any]:
    """The begin token stands before every document, and the end token behind it."""
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()} | {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _pieces(texts: Iterable[str], room: int) -> list[str]:
    """Characters and pieces of words, the earlier merged the earlier in the list; lines end on their own."""
    from tokenizers import pre_tokenizers

    cuts = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
        ]
    )
    texts = list(texts)
    counts = Counter(letter for text in texts for letter in text.replace(" ", SPACE))
    # The library alone breaks ties between rare characters at random.
    letters = sorted(counts, key=lambda letter: (-counts[letter], letter))[: min(_MOST_CHARACTERS, room // 2)]
    state = _trained(texts, room, cuts, initial_alphabet=letters, limit_alphabet=len(letters))
    pieces = sorted(state["vocab"], key=state["vocab"].__getitem__)
    return pieces if SPACE in pieces else [SPACE, *pieces[: room - 1]]


def _merges(texts: Iterable[str], room: int) -> tuple[list[str], list[str]]:
    """Tokens and merges over all bytes."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    state = _trained(texts, room, pre_tokenizers.ByteLevel(add_prefix_space=False), initial_alphabet=alphabet)
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    return tokens, [" ".join(pair) for pair in state["merges"]]


def _trained(texts: Iterable[str], room: int, cuts: Any, **options: Any) -> dict[str, Any]:
    import json

    from tokenizers import Tokenizer, models, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = cuts
    trainer = trainers.BpeTrainer(vocab_size=room, show_progress=False, special_tokens=[], **options)
    library.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(library.to_str())["model"]
    return model
