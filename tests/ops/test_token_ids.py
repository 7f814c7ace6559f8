"""Token ids are integers (b, t) of the vocabulary; anything else is refused in one line."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.ops.token_ids import check_token_ids


@pytest.mark.parametrize("tokens", [np.array([[0, 4]]), np.zeros((2, 1), np.uint8), np.zeros((0, 3), int)])
def test_ids_of_the_vocabulary_are_taken(tokens):
    check_token_ids(tokens, 5)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[1, 2]], "tokens are a list; an array of integers"),
        (np.zeros((1, 2)), "tokens are float64; integers are needed"),
        (np.zeros((1, 2), bool), "tokens are bool; integers are needed"),
        (np.zeros(2, int), r"shape \(2,\) do not fit: \(b, t\) is needed"),
        (np.zeros((3, 0), int), "an empty sequence"),
        (np.array([[1, 5]]), "token ids go from 1 to 5; this vocabulary has 0 to 4"),
        (np.array([[-1, 2]]), "token ids go from -1 to 2"),
    ],
)
def test_anything_else_is_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        check_token_ids(tokens, 5)


def test_traced_ids_are_looked_at_by_shape_only():
    jax.eval_shape(lambda tokens: check_token_ids(tokens, 5), np.array([[7]]))
    with pytest.raises(ValueError, match="an empty sequence"):
        jax.eval_shape(lambda tokens: check_token_ids(tokens, 5), np.zeros((1, 0), int))
