"""Bytes and tokenizer files."""

from __future__ import annotations

import json

import pytest

from sparsejax.training.text.tokenizer import ByteTokenizer, read_tokenizer, tokenizer_named

WORDS = {"the": 0, "cat": 1, "<|endoftext|>": 2, "[UNK]": 3}


def word_tokenizer() -> str:
    """A tokenizer.json of four words."""
    model = {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"}
    return json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model})


def test_bytes_take_anything_and_give_text_back():
    tokenizer = ByteTokenizer()
    text = "naïve — ∂x"
    ids = tokenizer.encode(text.encode())
    assert tokenizer.decode([*ids, tokenizer.end, 257]) == text
    assert tokenizer.encode(b"\xff\x00").tolist() == [255, 0]
    assert tokenizer.decode([255, 65]) == "�A"


def test_tokenizer_file_is_read_and_named(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(word_tokenizer())
    tokenizer = read_tokenizer(path)
    assert tokenizer.encode(b"the cat dog").tolist() == [0, 1, 3]
    assert (tokenizer.vocab_size, tokenizer.end) == (4, 2)
    again = tokenizer_named(tokenizer.name)
    assert again.decode([1, 0]) == "cat the"
    with pytest.raises(ValueError, match="is not UTF-8 at byte 4"):
        tokenizer.encode(b"the \xff")


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "cannot be read: No such file"), ("{", "is no tokenizer.json"), ("{}", "is no tokenizer of the")],
)
def test_other_files_are_told_in_one_line(text, told, tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        read_tokenizer(path)
    assert str(path) in str(error.value)
