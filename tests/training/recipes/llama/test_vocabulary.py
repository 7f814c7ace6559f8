"""Vocabularies for GGUF: every text comes back, the same text gives the same pieces, words are cut alike."""

from __future__ import annotations

import pytest

from sparsejax.models.sparse_inference.tokenizer.tokenizer import SPACE
from sparsejax.training.recipes.llama.text import FileTokenizer
from sparsejax.training.recipes.llama.vocabulary import vocabulary

pytest.importorskip("tokenizers")

TEXTS = ["to be, or not to be:\n  that is the question " * 4, "né à 3 × 7 = 21\t\u2603 <s> [x]_y  "]
KINDS = ("bytes", "llama", "gpt2")


@pytest.fixture(scope="module", params=KINDS)
def made(request):
    return request.param, vocabulary(request.param, TEXTS * 3, 300)


def test_every_text_comes_back(made):
    tokenizer = FileTokenizer(made[1])
    for text in [*TEXTS, "", "  two  ", "\u4e2d\U0001f600"]:
        ids = tokenizer.encode(text.encode())
        assert tokenizer.decode(ids) == text
        # What prompts are cut into, begin token first, is what the network was trained on.
        assert ids.tolist() == tokenizer.inner.encode(text, end=False)
        assert ids[0] == tokenizer.inner.vocabulary.begin


def test_the_same_texts_give_the_same_vocabulary(made):
    kind, metadata = made
    assert vocabulary(kind, TEXTS * 3, 300) == metadata


def test_trained_pieces_make_texts_shorter_and_spaces_only_begin_them():
    of_bytes = FileTokenizer(vocabulary("bytes", (), 0))
    for kind in ("llama", "gpt2"):
        tokenizer = FileTokenizer(vocabulary(kind, TEXTS * 3, 300))
        text = TEXTS[0].encode()
        assert len(tokenizer.encode(text)) < 0.7 * len(of_bytes.encode(text))
    pieces = vocabulary("llama", TEXTS * 3, 300)["tokenizer.ggml.tokens"][259:]
    assert not any(SPACE in piece[1:] for piece in pieces)
    assert any(len(piece) > 2 for piece in pieces)


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="a vocabulary of 100 has no room beside 260 bytes"):
        vocabulary("llama", TEXTS, 100)
    with pytest.raises(ValueError, match="is not UTF-8 at byte 1; convert it"):
        FileTokenizer(vocabulary("bytes", (), 0)).encode(b"a\xff")
