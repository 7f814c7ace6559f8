"""Text of tokens that come one by one."""

from __future__ import annotations

import pytest

from sparsejax.training.text.pieces import text_pieces, until
from sparsejax.training.text.tokenizer import ByteTokenizer


def test_pieces_never_end_within_a_character():
    text = "aé€😀z"
    assert list(text_pieces(ByteTokenizer(), text.encode())) == list(text)
    cut_off = list(text_pieces(ByteTokenizer(), b"ab\xff\xfec\xe2\x82"))
    assert "".join(cut_off) == b"ab\xff\xfec\xe2\x82".decode("utf-8", "replace")
    assert list(text_pieces(ByteTokenizer(), [])) == []
    assert list(text_pieces(ByteTokenizer(), [97, 256, 98])) == ["a", "b"]


@pytest.mark.parametrize(
    ("pieces", "ends", "expected"),
    [
        (["abc", "def"], [], "abcdef"),
        (["ab", "cd", "ef"], ["cd"], "ab"),
        (["a", "b", "c", "d"], ["bcx", "cd"], "ab"),
        (["aab"], ["ab"], "a"),
        (["aa", "ab", "c"], ["aab"], "a"),
        (["abcab"], ["abd"], "abcab"),
    ],
)
def test_text_ends_before_the_first_stop(pieces, ends, expected):
    assert "".join(until(pieces, ends)) == expected
