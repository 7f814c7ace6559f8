"""The text of the shipped language models."""

from __future__ import annotations

from itertools import islice

from sparsejax.training.recipes.documentation import documentation


def test_the_text_is_documentation():
    first = list(islice(documentation(), 3))
    assert all(len(text) >= 80 for text in first)
    assert len({*first}) == 3
