"""Lines as rows of tokens."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.training.text.lines import TokenRows, read_lines, split_lines
from sparsejax.training.text.special import SpecialIds
from sparsejax.training.text.tokenizer import ByteTokenizer

SPECIAL = SpecialIds(pad=0, cls=1, sep=2, mask=3, all=(0, 1, 2, 3))


def _rows(lines, **options):
    rows = TokenRows(lines, ByteTokenizer(), SPECIAL, seq_len=6, **options)
    return [row["tokens"].tolist() for row in (rows[number] for number in range(len(rows)))]


def test_rows_are_marked_padded_and_cut_or_continued():
    a, b = ord("a"), ord("b")
    assert _rows(["ab", "aaaab"]) == [[1, a, b, 2, 0, 0], [1, a, a, a, a, 2], [1, b, 2, 0, 0, 0]]
    assert _rows(["ab", "aaaab"], cut=True) == [[1, a, b, 2, 0, 0], [1, a, a, a, a, 2]]


def test_rows_know_their_numbers_and_how_many_tokens_they_have():
    rows = TokenRows(["ab", "aaaab"], ByteTokenizer(), SPECIAL, seq_len=6)
    assert [int(rows[number]["number"]) for number in range(3)] == [0, 1, 2]
    assert rows.tokens == 7
    assert rows.blank["tokens"].tolist() == [0] * 6
    with pytest.raises(IndexError):
        rows[3]
    with pytest.raises(ValueError, match="a row of 2 tokens has no room"):
        TokenRows(["ab"], ByteTokenizer(), SPECIAL, seq_len=2)
    with pytest.raises(ValueError, match="no line of the text has a token"):
        TokenRows([""], ByteTokenizer(), SPECIAL, seq_len=6)


def test_lines_of_files_and_folders(tmp_path):
    (tmp_path / "b.txt").write_text("three\n")
    (tmp_path / "a.txt").write_text(" one\n\n\t\ntwo\u2028still two \r\n")
    assert read_lines(tmp_path) == ["one", "two\u2028still two", "three"]
    assert read_lines(tmp_path / "b.txt") == ["three"]
    (tmp_path / "c.txt").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"c\.txt: is not UTF-8 at byte 0"):
        read_lines(tmp_path)
    (tmp_path / "c.txt").write_text(" \n")
    with pytest.raises(ValueError, match="holds no text"):
        read_lines(tmp_path / "c.txt")
    with pytest.raises(ValueError, match="there is no such file or folder"):
        read_lines(tmp_path / "none.txt")


def test_held_out_lines_are_drawn_by_the_seed_and_never_all_or_none():
    lines = [str(number) for number in range(100)]
    training, held_out = split_lines(lines, 0.1, seed=3)
    assert sorted([*training, *held_out], key=int) == lines
    assert (len(held_out), held_out) == (10, sorted(held_out, key=int))
    assert split_lines(lines, 0.1, seed=3)[1] == held_out != split_lines(lines, 0.1, seed=4)[1]
    assert [len(part) for part in split_lines(["a", "b"], 0.01)] == [1, 1]
    assert [len(part) for part in split_lines(["a", "b"], 0.99)] == [1, 1]
    for fraction in (0, 1, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_lines(lines, fraction)
    with pytest.raises(ValueError, match="one line is too short"):
        split_lines(["a"], 0.5)
