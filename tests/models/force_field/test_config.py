"""Sizes and words that no network can have."""

from __future__ import annotations

import pytest

from sparsejax.models.force_field import ForceFieldConfig


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variant": "painn"}, r"no variant 'painn'; choose one of \('cartesian', 'equivariant'\)"),
        ({"hidden_dim": 6}, "hidden_dim must be a multiple of 4, not 6"),
        ({"cutoff": float("inf")}, "cutoff must be a positive number of A, not inf"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be positive, not 0.0"),
    ],
)
def test_what_cannot_be_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ForceFieldConfig(**fields)
