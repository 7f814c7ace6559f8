"""WordPiece: a user's vocabulary, and one trained from text."""

from __future__ import annotations

import json

import pytest

from sparsejax.training.text.special import special_ids
from sparsejax.training.text.tokenizer import JsonTokenizer, read_tokenizer, tokenizer_named
from sparsejax.training.text.wordpiece import trained_wordpiece, wordpiece_from_vocabulary

pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", ",", "cafe", "!", "a"]


def _ids(tokenizer, text):
    return tokenizer.encode(text.encode()).tolist()


def test_vocabulary_file_is_read_as_bert_reads_it(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join(WORDS).encode() + b"\r\n")  # some editors end lines so
    tokenizer = read_tokenizer(path)
    assert _ids(tokenizer, "Unaffable,Café !\n") == [5, 6, 7, 8, 9, 10]  # lower case, no accents, punctuation
    assert _ids(tokenizer, "unaff unx [MASK]") == [5, 6, 1, 4]
    assert _ids(tokenizer, "a" * 101) == [1]  # too long a word
    assert tokenizer.decode([2, 5, 6, 7, 3]) == "unaffable"
    special = special_ids(tokenizer)
    assert (special.pad, special.cls, special.sep, special.mask, special.all) == (0, 2, 3, 4, (0, 1, 2, 3, 4))
    assert tokenizer_named(tokenizer.name).name == tokenizer.name


def test_capitals_in_a_vocabulary_are_kept():
    tokenizer = JsonTokenizer(wordpiece_from_vocabulary([*WORDS, "Cafe", "Café"]))
    assert _ids(tokenizer, "cafe Cafe Café") == [9, 12, 13]


@pytest.mark.parametrize(
    ("words", "told"),
    [([*WORDS, "un"], "has 'un' twice, in lines 6 and 13"), (["one", "two"], r"it has no \[UNK\]")],
)
def test_a_file_that_is_no_vocabulary_is_refused(words, told, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words))
    with pytest.raises(ValueError, match=rf"words\.txt: .*{told}"):
        read_tokenizer(path)


def test_training_is_the_same_every_time_and_keeps_to_its_size():
    lines = [f"the {kind} of number {number} is known" for number in range(40) for kind in ("sum", "root")]
    contents = trained_wordpiece(lines, 60)
    assert all(contents == trained_wordpiece(lines, 60) for _ in range(3))
    tokenizer = JsonTokenizer(contents)
    assert 50 <= tokenizer.vocab_size <= 60
    assert max(tokenizer.vocabulary.values()) == tokenizer.vocab_size - 1
    assert special_ids(tokenizer).all == (0, 1, 2, 3, 4)
    assert tokenizer.decode(_ids(tokenizer, "The root of 27")) == "the root of 27"
    assert {"1", "##0", "the"} <= {*json.loads(contents)["model"]["vocab"]}
    assert JsonTokenizer(trained_wordpiece(lines, 16)).vocab_size <= 16
    with pytest.raises(ValueError, match="a vocabulary of 6 has no room beside 5 special tokens"):
        trained_wordpiece(lines, 6)


def test_tokenizers_without_a_mask_are_told():
    with pytest.raises(ValueError, match=r"has no \[PAD\], \[CLS\], \[SEP\], \[MASK\], which masked"):
        special_ids(read_tokenizer(None))
    with pytest.raises(ValueError, match=r"has no \[MASK\], which"):
        special_ids(JsonTokenizer(wordpiece_from_vocabulary([*WORDS[:4], "a"])))
