"""WordPiece tokenizers: from a ``vocab.txt`` as BERT's, or trained from text; both as ``tokenizer.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sparsejax.training.text.special import NAMES

_PREFIX = "##"
_MOST_CHARACTERS = 1000
_LONGEST_WORD = 100  # characters; longer words are unknown


def wordpiece_from_vocabulary(lines: Sequence[str]) -> str:
    """The contents of a ``tokenizer.json`` for a vocabulary, a token per line, whose numbers are the ids.

    Text is lower-cased and loses its accents unless the vocabulary has capital letters; punctuation marks are
    words of their own.

    Args:
      lines: of the file.

    Raises:
      ValueError: a token is there twice, or there is none for unknown words.

    Example:
      >>> from sparsejax.training.text.tokenizer import JsonTokenizer
      >>> contents = wordpiece_from_vocabulary(["[PAD]", "[UNK]", "un", "##affable", "!"])
      >>> JsonTokenizer(contents).encode("Unaffable! yes".encode()).tolist()
      [2, 3, 4, 1]

    Source: specs/sprout.md section 4.
    """
    ids: dict[str, int] = {}
    for number, line in enumerate(lines):
        if ids.setdefault(line, number) != number:
            raise ValueError(f"has {line!r} twice, in lines {ids[line] + 1} and {number + 1}")
    if NAMES["unk"][0] not in ids:
        raise ValueError(f"is no vocabulary: it has no {NAMES['unk'][0]}")
    words = (token for token in ids if not (token.startswith("[") and token.endswith("]")))
    library = _library(ids, lowercase=not any(token != token.lower() for token in words))
    _add_special(library, [name for names in NAMES.values() for name in names if name in ids])
    written: str = library.to_str()
    return written


def trained_wordpiece(lines: Collection[str], vocab_size: int) -> str:
    """The contents of a ``tokenizer.json`` trained from text: characters and frequent pieces of words.

    The same lines give the same vocabulary, so that a run can be repeated; the library alone numbers the
    characters within words at random, and breaks ties between pieces by these numbers.

    Args:
      lines: of text.
      vocab_size: tokens at most, special ones included; a short text gives fewer. Of more characters than
        there is room for the rare ones are unknown.

    Raises:
      ValueError: there is no room for words.
      ModuleNotFoundError: the library tokenizers, the extra ``text``, is missing.

    Example:
      >>> import json
      >>> contents = json.loads(trained_wordpiece(["a rose is a rose"] * 9, 20))
      >>> sorted(contents["model"]["vocab"], key=contents["model"]["vocab"].get)[:6]
      ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a']
    """
    from tokenizers.trainers import WordPieceTrainer

    special = [names[0] for names in NAMES.values()]
    if vocab_size < len(special) + 2:
        raise ValueError(f"a vocabulary of {vocab_size} has no room beside {len(special)} special tokens")
    library = _library({NAMES["unk"][0]: 0}, lowercase=True)
    characters, seen = _characters(library, lines, min(_MOST_CHARACTERS, (vocab_size - len(special)) // 2))
    unseen = {piece for letter in characters for piece in (letter, _PREFIX + letter)} - seen
    trainer = WordPieceTrainer(
        vocab_size=vocab_size + len(unseen),
        # Told beforehand, the characters have fixed numbers.
        special_tokens=[*special, *characters, *(_PREFIX + letter for letter in characters)],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    library.train_from_iterator(lines, trainer)
    ids = library.get_vocab(with_added_tokens=True)
    return wordpiece_from_vocabulary(
        [token for token in sorted(ids, key=ids.__getitem__) if token not in unseen]
    )


def _characters(library: Any, lines: Iterable[str], most: int) -> tuple[list[str], set[str]]:
    """The most frequent characters, in order; and those seen, with the prefix where they begin no word."""
    counts: Counter[str] = Counter()
    for line in lines:
        text = library.normalizer.normalize_str(line)
        for word, _ in library.pre_tokenizer.pre_tokenize_str(text):
            counts.update([word[0], *(_PREFIX + letter for letter in word[1:])])
    totals: Counter[str] = Counter()
    for piece, count in counts.items():
        totals[piece[-1]] += count
    kept = sorted(totals, key=lambda letter: (-totals[letter], letter))[:most]
    return sorted(kept), set(counts)


def _library(ids: dict[str, int], *, lowercase: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = models.WordPiece(
        ids,
        unk_token=NAMES["unk"][0],
        max_input_chars_per_word=_LONGEST_WORD,
        continuing_subword_prefix=_PREFIX,
    )
    library = Tokenizer(model)
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix=_PREFIX)
    return library


def _add_special(library: Any, names: Sequence[str]) -> None:
    from tokenizers import AddedToken

    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
