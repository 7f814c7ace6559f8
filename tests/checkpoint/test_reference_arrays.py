"""Inputs of reference files are found by any of their names, and missed by all of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax.checkpoint import registry
from sparsejax.checkpoint.errors import MissingKeyError
from sparsejax.checkpoint.reference_arrays import FEATURE_NAMES, TOKEN_NAMES, named
from sparsejax.models.sparse_inference.llama.config import LlamaConfig
from sparsejax.models.sprout.config import SproutConfig
from sparsejax.models.ten import TemporalEigenstateConfig


def test_the_first_name_that_is_there_is_taken():
    assert named({"tokens": 1, "input_ids": 2}, TOKEN_NAMES) == 2


@pytest.mark.parametrize("names", [TOKEN_NAMES, FEATURE_NAMES])
def test_all_names_are_told(names):
    told = "one of " + ", ".join(map(repr, names)) + " is needed; found 'y'"
    with pytest.raises(MissingKeyError, match=told):
        named({"y": 1}, names)


@pytest.mark.parametrize("name", TOKEN_NAMES)
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("sparse_inference", LlamaConfig(vocab_size=9, d_model=8, d_ff=8, n_layers=1, n_heads=2)),
        ("sprout", SproutConfig()),
        ("ten", TemporalEigenstateConfig()),
    ],
)
def test_language_models_read_tokens_by_each_name(kind, config, name):
    ck = SimpleNamespace(config=config, apply=lambda tokens, **_: SimpleNamespace(logits=tokens))
    tokens = np.ones((1, 3), np.int32)
    np.testing.assert_array_equal(registry.find(kind).evaluate(ck, {name: tokens}), tokens)
