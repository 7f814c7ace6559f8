"""Selections: ties, strict thresholds, blocks, and what is refused outside of jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference import SparsityConfig, select, select_mask
from sparsejax.models.sparse_inference.ffn.selection import select_blocks

jit_select = jax.jit(select, static_argnames="sparsity")
jit_mask = jax.jit(select_mask, static_argnames="sparsity")
SCORES = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
TOP, ABOVE = SparsityConfig.with_top_k, SparsityConfig.with_threshold


@pytest.mark.parametrize("top_k", [1, 37, 299, 300])
def test_the_largest_ascending(top_k):
    expected = np.sort(np.argsort(-SCORES, axis=1, kind="stable")[:, :top_k], axis=1)
    np.testing.assert_array_equal(jit_select(SCORES, sparsity=TOP(top_k)), expected)
    mask = np.asarray(jit_mask(SCORES, sparsity=TOP(top_k)))
    np.testing.assert_array_equal(np.nonzero(mask)[1].reshape(6, top_k), expected)


def test_of_equal_scores_the_lowest_index():
    scores = jnp.asarray(np.repeat([1.0, 2.0], [200, 100]).astype(np.float32))
    assert jit_select(scores, sparsity=TOP(102)).tolist() == [0, 1, *range(200, 300)]
    assert select(jnp.zeros(5), TOP(2)).tolist() == [0, 1]
    assert select(jnp.array([-0.0, 0.0]), TOP(1)).tolist() == [0]


def test_a_threshold_is_strict():
    scores = jnp.array([0.5, 0.5000001, -1.0, 2.0])
    assert select(scores, ABOVE(0.5)).tolist() == [1, 3]
    assert select_mask(scores, ABOVE(0.5)).tolist() == [False, True, False, True]
    assert select(scores, SparsityConfig().calibrated(-2.0)).tolist() == [0, 1, 2, 3]


def test_target_sparsity_is_honoured():
    config = SparsityConfig.with_target_sparsity(0.9)
    assert jit_select(SCORES, sparsity=config).shape == (6, 30)
    np.testing.assert_array_equal(jit_mask(SCORES, sparsity=config).sum(axis=1), 30)


def test_blocks():
    scores = SCORES[:, :70]
    padded = np.pad(np.maximum(scores, 0) ** 2, ((0, 0), (0, 10))).reshape(6, 5, 16).sum(axis=-1)
    expected = np.sort(np.argsort(-padded, axis=1)[:, :2], axis=1)
    found = select_blocks(jnp.asarray(scores), TOP(35), block_size=16)
    np.testing.assert_array_equal(found, expected)
    mask = np.asarray(select_mask(jnp.asarray(scores), TOP(35), block_size=16))
    whole = (np.arange(70) // 16)[None, :, None] == expected[:, None]
    np.testing.assert_array_equal(mask, whole.any(axis=-1))
    assert select_blocks(jnp.asarray([0.0, 3.0, 1.0, 1.0, 2.5]), ABOVE(2.0), block_size=2).tolist() == [0, 2]


def test_empty_ones():
    scores = jnp.array([0.1, -3.0])
    assert select(scores, ABOVE(1.0)).shape == (0,)
    assert select_blocks(scores, ABOVE(1.0), block_size=2).shape == (0,)
    for choose in (select, lambda *args, **kind: select_blocks(*args, block_size=2, **kind)):
        with pytest.raises(ValueError, match=r"no active neurons: no score exceeds the threshold 1\.0"):
            choose(scores, ABOVE(1.0), strict=True)


@pytest.mark.parametrize(
    ("scores", "config", "message"),
    [
        (np.array([1.0, np.nan], np.float32), TOP(1), "hold NaN"),
        (np.array([1.0, np.nan], np.float32), ABOVE(0.0), "hold NaN"),
        (np.ones(3, np.float32), TOP(4), "top_k 4 is more than the 3 neurons"),
        (np.ones((2, 3), np.float32), ABOVE(0.5), "use select_mask"),
        (np.ones((2, 0), np.float32), TOP(1), "of no neurons"),
    ],
)
def test_what_is_refused(scores, config, message):
    with pytest.raises(ValueError, match=message):
        select(jnp.asarray(scores), config)


def test_a_traced_threshold_is_refused():
    with pytest.raises(ValueError, match="use select_mask"):
        jax.eval_shape(lambda scores: select(scores, ABOVE(0.5)), SCORES[0])
