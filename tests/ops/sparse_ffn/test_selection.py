"""Selection is exact: so many, the largest, the lowest index among equals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.sparse_ffn import block_count, top_k_indices, top_k_mask


def _oracle(scores, top_k):
    ranked = np.where(np.isnan(scores), np.inf, scores.astype(np.float64))
    order = np.argsort(-ranked, axis=-1, kind="stable")[..., :top_k]
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


@pytest.fixture(scope="module")
def tied():
    """Rounded scores of both signs with zeros of both signs, infinities and NaN; odd numbers of rows."""
    normal = np.random.default_rng(0).normal(size=(19, 37))
    scores = (np.round(normal * 2) / 2 * np.sign(normal)).astype(np.float32)
    scores[3, 5], scores[4, 6], scores[5, :4], scores[6, ::2] = np.nan, -np.nan, np.inf, -np.inf
    scores[7] = np.where(np.arange(37) % 2, 0.0, -0.0)
    return scores


def test_a_traced_count_selects_exactly_and_compiles_once(tied):
    traces = []

    @jax.jit
    def select(scores, top_k):
        traces.append(top_k)
        return top_k_mask(scores, top_k)

    for top_k in (-1, 0, 1, 7, 20, 36, 37, 50):
        wanted = _oracle(tied, max(0, min(top_k, 37)))
        np.testing.assert_array_equal(select(tied, top_k), wanted)
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_static_count_selects_the_same(tied, dtype):
    scores = jnp.asarray(tied).astype(dtype)
    for top_k in (0, 9, 37):
        np.testing.assert_array_equal(top_k_mask(scores, top_k), _oracle(np.asarray(scores), top_k))


def test_float64_scores_are_told_apart_beyond_float32():
    with jax.enable_x64(True):
        scores = jnp.asarray([1.0, 1.0 + 1e-12, -1.0, 1.0 - 1e-12])
        assert top_k_mask(scores, 1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("rows", [1, 19])
def test_indices_are_those_of_the_mask(tied, rows):
    for top_k in (0, 5, 37):
        indices = np.asarray(top_k_indices(jnp.asarray(tied[:rows]), top_k))
        wanted = np.nonzero(_oracle(tied[:rows], top_k))[1].reshape(rows, top_k)
        np.testing.assert_array_equal(indices, wanted)
        assert indices.dtype == np.int32


def test_zeros_of_both_signs_are_equal_for_one_row_too():
    scores = jnp.asarray([0.0, -0.0, -1.0, 0.0])
    assert top_k_indices(scores, 2).tolist() == [0, 1]
    assert top_k_mask(scores, 2).tolist() == [True, True, False, False]


def test_too_many_indices_are_refused():
    with pytest.raises(ValueError, match="top_k must be 0 to 4"):
        top_k_indices(jnp.zeros(4), 5)


def test_block_counts_round_down_but_keep_one():
    cases = [(0, 0), (1, 1), (63, 1), (64, 1), (128, 2), (205, 3)]
    assert [block_count(top_k, 64) for top_k, _ in cases] == [count for _, count in cases]
    assert [int(block_count(jnp.asarray(top_k), 64)) for top_k, _ in cases] == [count for _, count in cases]
