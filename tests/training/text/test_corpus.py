"""Files to documents, and the held-out part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsejax.training.text.corpus import Corpus, documents, read_corpus, split
from sparsejax.training.text.tokenizer import ByteTokenizer

BYTES = ByteTokenizer()


def _documents(corpus):
    return [bytes(part[:-1].tolist()) for part in np.split(corpus.tokens, corpus.starts[1:])]


def test_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in {"b.txt": "bee", "sub/c.txt": "sea", "a.txt": "\n", "d.md": "dee"}.items():
        (tmp_path / name).write_text(text)
    corpus = read_corpus(tmp_path, BYTES)
    assert _documents(corpus) == [b"bee", b"sea"]  # a.txt is blank
    assert corpus.tokens[3] == BYTES.end
    assert corpus.document(np.array([0, 3, 4])).tolist() == [1, 1, 2]
    assert _documents(read_corpus(tmp_path, BYTES, pattern="*.md")) == [b"dee"]


def test_separator_divides_a_file(tmp_path):
    path = tmp_path / "stories"
    path.write_bytes(b"one<|endoftext|>\xff\xfe<|endoftext|>\n")
    assert _documents(read_corpus(path, BYTES, separator="<|endoftext|>")) == [b"one", b"\xff\xfe"]


def test_documents_know_their_file_and_are_strict_about_text(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"three\xff")
    (tmp_path / "a.txt").write_text("one| |two")
    *found, last = documents(tmp_path, separator="|")
    assert [document.text() for document in found] == ["one", "two"]
    assert last.content == b"three\xff"
    with pytest.raises(ValueError, match=r"b\.txt: is not UTF-8 at byte 5; convert it"):
        last.text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", "there is no such file or folder"),
        ("empty.txt", "holds no text"),
        ("folder", "no file in it"),
    ],
)
def test_missing_and_empty_texts_are_told(name, told, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=told):
        read_corpus(tmp_path / name, BYTES)


def test_files_that_cannot_be_read_or_encoded_are_named(tmp_path, monkeypatch):
    class Strict(ByteTokenizer):
        def encode(self, content):
            raise ValueError(f"is not UTF-8 at byte {content.index(255)}")

    path = tmp_path / "a.txt"
    path.write_bytes(b"a\xff")
    with pytest.raises(ValueError, match=r"a\.txt: is not UTF-8 at byte 1$"):
        read_corpus(path, Strict())

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"a\.txt: cannot be read: Permission denied$"):
        read_corpus(path, BYTES)


def test_many_documents_are_held_out_whole():
    lengths = np.random.default_rng(0).integers(5, 50, 60)
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(60), lengths)  # each token says whose it is
    training, held_out = split(Corpus(owner, starts), 0.2, seed=3)
    assert len(training.tokens) + len(held_out.tokens) == lengths.sum()
    assert not set(training.tokens) & set(held_out.tokens)
    assert 0.15 < len(held_out.tokens) / lengths.sum() < 0.3
    for part in (training, held_out):
        assert (np.diff(part.tokens)[part.starts[1:] - 1] > 0).all()
        assert len(set(part.tokens)) == len(part.starts)
    again, other = (split(Corpus(owner, starts), 0.2, seed=seed)[1].tokens for seed in (3, 4))
    assert np.array_equal(again, held_out.tokens)
    assert not np.array_equal(other, held_out.tokens)


def test_of_few_documents_the_tail_is_held_out():
    corpus = Corpus(np.arange(100), np.array([0, 30, 90, 95]))
    training, held_out = split(corpus, 0.2)
    assert (training.tokens[-1], training.starts.tolist()) == (79, [0, 30])
    assert (held_out.tokens[0], held_out.starts.tolist()) == (80, [0, 10, 15])
    at_a_border = split(corpus, 0.1)[1]
    assert at_a_border.starts.tolist() == [0, 5]


def test_impossible_splits_are_refused():
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(Corpus(np.arange(10), np.array([0])), fraction)
    with pytest.raises(ValueError, match="10 tokens is too short"):
        split(Corpus(np.arange(10), np.array([0])), 0.01)
