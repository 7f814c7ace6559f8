"""Windows: every token a target once, borders, the filled-up rest."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.text.corpus import Corpus
from sparsejax.training.text.packing import Windows

CORPUS = Corpus(np.arange(100, 123, dtype=np.uint16), np.array([0, 6, 7, 20]))


def test_every_token_but_the_first_of_a_document_is_a_target_once():
    windows = [window for window in Windows(CORPUS, 5, keep_rest=True)]
    targets = np.concatenate([window["targets"] for window in windows])
    assert targets[targets != IGNORED].tolist() == [n for n in range(101, 123) if n not in (106, 107, 120)]
    for window in windows:
        counted = window["targets"] != IGNORED
        assert (window["targets"] - window["inputs"])[counted].tolist() == [1] * counted.sum()
        assert {part.dtype for part in window.values()} == {np.dtype(np.int32)}
    assert windows[1]["segment_ids"].tolist() == [1, 2, 3, 3, 3]


def test_the_rest_is_dropped_or_filled_up():
    assert len(Windows(CORPUS, 5)) == 4
    filled = Windows(CORPUS, 5, keep_rest=True)
    assert len(filled) == 5
    assert filled[4]["targets"].tolist() == [121, 122, IGNORED, IGNORED, IGNORED]


def test_short_texts_are_refused():
    with pytest.raises(ValueError, match="23 tokens is shorter than one window of 24"):
        Windows(CORPUS, 23)
    assert len(Windows(CORPUS, 22)) == 1
    with pytest.raises(ValueError, match="1 tokens is shorter than one window of 2"):
        Windows(Corpus(np.arange(1), np.array([0])), 5, keep_rest=True)
    with pytest.raises(ValueError, match="at least 1 token"):
        Windows(CORPUS, 0)
