"""Batches through grain: a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.text.batches import training_batches, whole_batches
from sparsejax.training.text.corpus import Corpus
from sparsejax.training.text.packing import Windows

pytest.importorskip("grain")

WINDOWS = Windows(Corpus(np.arange(41), np.array([0])), 4)  # ten windows


def _first_tokens(start, stop, seed=0):
    batches = training_batches(WINDOWS, batch_size=4, seed=seed, start=start, stop=stop)
    return [np.asarray(batch["inputs"])[:, 0].tolist() for batch in batches]


def test_an_epoch_has_every_window_once_and_an_order_of_its_own():
    drawn = sum(_first_tokens(0, 5), [])  # two epochs
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(0, 40, 4))
    assert drawn[:10] != drawn[10:]


def test_resumed_batches_are_those_that_were_left():
    assert _first_tokens(3, 7) == _first_tokens(0, 7)[3:]
    assert _first_tokens(0, 7) != _first_tokens(0, 7, seed=1)


def test_whole_batches_cover_the_text_in_one_shape():
    batches = list(whole_batches(WINDOWS, batch_size=4))
    assert {batch["inputs"].shape for batch in batches} == {(4, 4)}
    targets = np.concatenate([np.asarray(batch["targets"]).ravel() for batch in batches])
    assert targets[targets != IGNORED].tolist() == list(range(1, 41))
