"""Batches are checked and cut; a reservoir keeps each row with the same chance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.rows import Reservoir, checked_batch, pieces


def test_any_leading_axes_and_types():
    first, second = checked_batch(jnp.ones((2, 3, 4), jnp.bfloat16), (4, None))
    assert first is second and first.shape == (6, 4) and first.dtype == np.float32
    first, second = checked_batch((np.ones((2, 3, 4)), np.ones((6, 5))), (4, 5))
    assert first.shape == (6, 4) and second.shape == (6, 5)


def test_pieces_are_filled_up():
    rows = np.arange(10.0).reshape(5, 2)
    found = list(pieces((rows, rows), 3))
    assert [count for *_, count in found] == [3, 2]
    np.testing.assert_array_equal(found[1][0], [[6, 7], [8, 9], [0, 0]])


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_a_reservoir_is_fair(size):
    kept = np.zeros(40)
    for seed in range(300):
        reservoir = Reservoir(size, seed=seed)
        for start in range(0, 40, 9):
            batch = np.arange(start, min(40, start + 9), dtype=np.float32)[:, None]
            reservoir.add((batch, batch))
        first, second = reservoir.rows()
        assert first is second and len(np.unique(first)) == min(size, 40) and reservoir.seen == 40
        kept[first[:, 0].astype(int)] += 1
    share = min(size, 40) / 40
    assert np.abs(kept / 300 - share).max() < 5 * (share * (1 - share) / 300) ** 0.5 + 1e-9


def test_pairs_stay_together():
    reservoir = Reservoir(5, seed=0)
    for start in range(4):
        rows = np.arange(10.0, dtype=np.float32)[:, None] + 10 * start
        reservoir.add((rows, 2 * rows))
    first, second = reservoir.rows()
    np.testing.assert_array_equal(second, 2 * first)


def test_a_reservoir_keeps_something():
    with pytest.raises(ValueError, match="at least one row must be kept, not 0"):
        Reservoir(0, seed=0)


def test_none():
    with pytest.raises(ValueError, match="no samples"):
        Reservoir(3, seed=0).rows()
