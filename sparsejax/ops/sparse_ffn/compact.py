"""From a mask to the places where it is true, without a sort and without a scatter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_WORD = 32  # places in a word of bits


def mask_indices(mask: Array, size: int) -> Array:
    """The places where a mask is true, ascending.

    Args:
      mask: bool (*b, f), of fewer than 2 ** 24 places.
      size: places to return: of more true ones the first are taken, and where there are fewer, f stands for
        none.

    Returns:
      int32 (*b, size).

    Example:
      >>> mask_indices(jnp.array([False, True, False, True]), 3).tolist()
      [1, 3, 4]

    Source: the mask becomes words of 32 bits; each wanted place is found in the counts of the words by
    halving, then in its word by counting halves of it. 1,101 of 11,008 take 45 us on CPU; halving over
    counts of all places 80, a cumulative sum and a scatter 200.
    """
    places = mask.shape[-1]
    words = _words(mask.reshape(-1, places))
    found = _found(words, places, size)
    return found.reshape(*mask.shape[:-1], size)


def _words(mask: Array) -> Array:
    """uint32 (n, words) whose bits are the places (n, f), the lowest bit first."""
    rows, places = mask.shape
    count = -(-places // _WORD)
    padded = jnp.pad(mask, ((0, 0), (0, count * _WORD - places))).reshape(rows, count, _WORD)
    bits = padded.astype(jnp.uint32) << jnp.arange(_WORD, dtype=jnp.uint32)
    words: Array = jax.lax.optimization_barrier(bits.sum(axis=-1, dtype=jnp.uint32))
    return words


def _found(words: Array, places: int, size: int) -> Array:
    """(n, size) the first places whose bits are set."""
    count = words.shape[1]
    own = jax.lax.population_count(words).astype(jnp.float32)
    total = own @ jnp.triu(jnp.ones((count, count), jnp.float32))  # exact below 2 ** 24
    total, before = jax.lax.optimization_barrier((total, total - own))
    wanted = jnp.arange(1, size + 1, dtype=jnp.float32)
    word = _first_reaching(total, wanted)
    there = jnp.minimum(word, count - 1)
    rank = (wanted - _taken(before, there)).astype(jnp.int32)
    return jnp.where(word < count, word * _WORD + _set_bit(_taken(words, there), rank), places)


def _first_reaching(total: Array, wanted: Array) -> Array:
    """(n, k) the first of ascending counts (n, m) that reaches each wanted one (k,); m where none does."""
    count = total.shape[1]
    below = jnp.zeros((len(total), len(wanted)), jnp.int32)  # counts known to be smaller
    step = 1 << max(0, count.bit_length() - 1)
    while step:
        tried = below + step
        fewer = _taken(total, jnp.minimum(tried, count) - 1) < wanted
        below = jnp.where((tried <= count) & fewer, tried, below)
        step //= 2
    first: Array = jax.lax.optimization_barrier(below)
    return first


def _set_bit(words: Array, rank: Array) -> Array:
    """The place of each word's ``rank``-th set bit, counted from 1."""
    place, half = jnp.zeros_like(rank), _WORD // 2
    while half:
        low = words & jnp.uint32((1 << half) - 1)
        count = jax.lax.population_count(low).astype(jnp.int32)
        above = rank > count
        rank = jnp.where(above, rank - count, rank)
        words = jnp.where(above, words >> half, low)
        place = jnp.where(above, place + half, place)
        half //= 2
    return place


def _taken(rows: Array, places: Array) -> Array:
    return jnp.take_along_axis(rows, places, axis=1, mode="promise_in_bounds")
