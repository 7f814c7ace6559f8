"""Bits to slots, against numpy one bit at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.models.force_field.neighbors_in_jit.slots import BITS, fill_slots
from tests.models.force_field.rows import assert_opposites

N, WORDS, SLOTS = 50, 2, 24


@jax.jit
def search(words):
    """Candidate 32 w + b of a row is the atom of that number."""
    atom = jnp.arange(N)[:, None]

    def opposite(word, _):
        return jnp.broadcast_to(atom // BITS, word.shape), jnp.broadcast_to(atom % BITS, word.shape)

    return fill_slots(words, SLOTS, lambda word, bit: word * BITS + bit, opposite)


def packed(near: np.ndarray) -> np.ndarray:
    wide = np.zeros((N, WORDS * BITS), np.uint64)
    wide[:, :N] = near
    return (wide.reshape(N, WORDS, BITS) << np.arange(BITS, dtype=np.uint64)).sum(-1).astype(np.uint32)


def symmetric(seed: int, density: float) -> np.ndarray:
    half = np.triu(np.random.default_rng(seed).random((N, N)) < density, 1)
    return half | half.T


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0, 0.3))
def test_rows_hold_the_set_bits_in_order_and_find_their_opposites(seed, density):
    near = symmetric(seed, density)
    found = jax.device_get(search(packed(near)))
    assert found.longest == near.sum(1).max()
    if found.longest <= SLOTS:
        for row in range(N):
            assert found.senders[row][found.mask[row]].tolist() == np.flatnonzero(near[row]).tolist()
    assert_opposites(found.senders, np.zeros((N, SLOTS, 3), int), found.mask, found.reverse)


def test_all_bits_of_a_word_can_be_set_and_rows_that_are_too_short_stay_symmetric():
    found = jax.device_get(search(packed(~np.eye(N, dtype=bool))))
    assert found.longest == N - 1
    assert_opposites(found.senders, np.zeros((N, SLOTS, 3), int), found.mask, found.reverse)
    # Atoms 0 to 24 keep each other: of the first 25, each is among the first 24 of the others.
    assert found.mask.sum() == 25 * 24


def test_an_edge_without_its_opposite_is_left_out():
    near = symmetric(3, 0.2)
    one_sided = near.copy()
    receiver, sender = np.argwhere(near)[7]
    one_sided[sender, receiver] = False
    found = jax.device_get(search(packed(one_sided)))
    assert found.mask.sum() == near.sum() - 2
    assert_opposites(found.senders, np.zeros((N, SLOTS, 3), int), found.mask, found.reverse)
