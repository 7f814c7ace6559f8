"""Prompts cut into segments: nothing is lost, and shapes are few."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.ops.prompts import cut, read_prompts


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 64, 69])
def test_segments_hold_every_token_once(length):
    prompts = read_prompts([list(range(length)), list(range(length // 2, length))], 100)
    parts = list(cut(prompts, 32))
    assert {part.tokens.shape[1] for part in parts[1:]} <= {32}
    assert parts[0].tokens.shape[1] in (16, 32)
    tokens = np.concatenate([part.tokens for part in parts], axis=1)
    ids = np.concatenate(
        [np.ones_like(p.tokens) if p.segment_ids is None else p.segment_ids for p in parts], axis=1
    )
    assert tokens[0][ids[0] == 1].tolist() == list(range(length))
    assert tokens[1][ids[1] == 1].tolist() == list(range(length // 2, length))
    assert parts[0].is_new.all()
