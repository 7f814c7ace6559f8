"""The tokens that masked language models need beside words, by the names that tokenizers give them."""

from __future__ import annotations

from dataclasses import dataclass

from sparsejax.training.text.tokenizer import JsonTokenizer, Tokenizer

NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens.

    Attributes:
      pad: filling.
      cls: first of a row.
      sep: last of a row.
      mask: stands for a token to be guessed.
      all: every special id of the tokenizer, also those for unknown words, ascending.
    """

    pad: int
    cls: int
    sep: int
    mask: int
    all: tuple[int, ...]


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The special tokens of a tokenizer.

    Raises:
      ValueError: it lacks one that is needed; one line.
    """
    known = tokenizer.vocabulary if isinstance(tokenizer, JsonTokenizer) else {}
    found = {
        part: next((known[name] for name in names if name in known), None) for part, names in NAMES.items()
    }
    missing = [NAMES[part][0] for part in ("pad", "cls", "sep", "mask") if found[part] is None]
    if missing:
        raise ValueError(f"the tokenizer has no {', '.join(missing)}, which masked language models need")
    ids = {part: value for part, value in found.items() if value is not None}
    declared = tokenizer.special if isinstance(tokenizer, JsonTokenizer) else frozenset()
    everything = tuple(sorted({*ids.values(), *declared}))
    return SpecialIds(ids["pad"], ids["cls"], ids["sep"], ids["mask"], everything)
