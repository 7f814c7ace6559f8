"""Which neurons a token uses: the largest scores, by ranks or thresholds rather than by sorting."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.sparse_ffn.compact import mask_indices

SORTED_SCORES = 128
"""Most scores, of all rows, whose indices come from `jax.lax.top_k`; of more they are read off the mask. On
CPU one row of 32 takes 8 us against 45, of 128 about as long, of 2,048 330 against 95."""

RANKED_SCORES = 64
"""Most scores of a row that are compared pair by pair, which is one pass without a loop."""

PIECE, MOST_PIECES = 256, 64
"""Scores of a row that are counted side by side, at least, and such pieces, at most."""

FEW_ROWS = 8
"""Most rows whose indices are searched in the counts of their mask, rather than written to their places."""

CHUNK_ROWS = 8
"""Rows that are bisected together on CPU, so that all passes over them stay in the cache: 4,096 rows of 2,048
scores take 84 ms of processor time against 220 for all rows at once."""


def block_count(top_k: int | Array, block_size: int) -> int | Array:
    """Blocks that ``top_k`` neurons make: rounded down, at least one unless ``top_k`` is 0.

    Args:
      top_k: neurons, static or a traced integer array ().
      block_size: neurons of a block.

    Example:
      >>> [block_count(k, 64) for k in (0, 5, 64, 205)]
      [0, 1, 1, 3]
    """
    if isinstance(top_k, int):
        return max(1, top_k // block_size) if top_k else 0
    return jnp.where(top_k > 0, jnp.maximum(1, top_k // block_size), 0)


def block_neurons(blocks: Array, block_size: int) -> Array:
    """The neurons (*b, k * block_size) of blocks (*b, k); of a short last block also some that are not there.

    Example:
      >>> block_neurons(jnp.array([0, 2]), 2).tolist()
      [0, 1, 4, 5]
    """
    if block_size == 1:
        return blocks
    places = blocks[..., None] * block_size + jnp.arange(block_size, dtype=blocks.dtype)
    return places.reshape(*blocks.shape[:-1], blocks.shape[-1] * block_size)


def top_k_mask(scores: Array, top_k: int | Array) -> Array:
    """True at the ``top_k`` largest scores of each row, and at exactly so many.

    Of equal scores the lowest index wins, and -0.0 equals 0.0. NaN counts as the largest score, as in
    `jax.lax.top_k` and ``torch.topk``, so that a broken score is seen rather than dropped.

    Args:
      scores: (*b, f), floating point.
      top_k: static, or a traced integer array (), which compiles once for all its values. At most 0 selects
        nothing and f or more everything.

    Returns:
      bool (*b, f).

    Example:
      >>> top_k_mask(jnp.array([0.1, 0.7, 0.7, 0.3]), 1).tolist()
      [False, True, False, False]

    Source: the bits of a float, read as an integer with the sign's order mended, order as the float does; so
    the smallest selected score is found bit by bit from counts alone. Few scores are ranked against each
    other.
    """
    count = scores.shape[-1]
    if isinstance(top_k, int) and (top_k <= 0 or top_k >= count):
        return jnp.full(scores.shape, top_k > 0)
    keys = order_keys(scores).reshape(-1, count)
    top_k = jnp.clip(jnp.asarray(top_k, jnp.int32), 0, count)
    if count <= RANKED_SCORES:
        return (_ranks(keys) < top_k).reshape(scores.shape)
    if backends.platform() != "cpu" or len(keys) < 2 * CHUNK_ROWS:
        return _by_threshold(keys, top_k).reshape(scores.shape)
    chunks = jnp.pad(keys, ((0, -len(keys) % CHUNK_ROWS), (0, 0)), mode="edge").reshape(-1, CHUNK_ROWS, count)
    mask: Array = jax.lax.map(partial(_by_threshold, top_k=top_k), chunks)
    return mask.reshape(-1, count)[: len(keys)].reshape(scores.shape)


def top_k_indices(scores: Array, top_k: int) -> Array:
    """Indices of the ``top_k`` largest scores of each row, ascending; ties as in `top_k_mask`.

    Args:
      scores: (*b, f), floating point.
      top_k: static, 0 to f.

    Returns:
      int32 (*b, k).

    Raises:
      ValueError: there are not so many scores.

    Example:
      >>> top_k_indices(jnp.array([0.1, 0.7, 0.9, 0.3]), 2).tolist()
      [1, 2]
    """
    if not 0 <= top_k <= scores.shape[-1]:
        raise ValueError(f"top_k must be 0 to {scores.shape[-1]}, the number of scores, not {top_k}")
    if scores.size <= SORTED_SCORES:
        return jnp.sort(jax.lax.top_k(order_keys(scores), top_k)[1], axis=-1)
    mask = top_k_mask(scores, top_k)
    if mask.size // scores.shape[-1] <= FEW_ROWS:
        return mask_indices(mask, top_k)
    place = jnp.where(mask, jnp.cumsum(mask, axis=-1) - 1, top_k)
    return _write_columns(place.reshape(-1, scores.shape[-1]), top_k).reshape(*scores.shape[:-1], top_k)


def order_keys(scores: Array) -> Array:
    """Integers (*b, f) that order as ``scores`` do: -0.0 as 0.0, NaN above everything.

    Example:
      >>> keys = order_keys(jnp.array([-1.0, -0.0, 0.0, 1.0, jnp.inf, -jnp.nan]))
      >>> (keys[1:] - keys[:-1] > 0).tolist()
      [True, False, True, True, True]
    """
    scores = jax.lax.stop_gradient(scores)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    integer = jnp.int64 if scores.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(scores, integer)
    largest = jnp.iinfo(integer).max
    keys = jnp.where(bits < 0, -(bits & largest), bits)
    return jnp.where(jnp.isnan(scores), largest, keys)


def _ranks(keys: Array) -> Array:
    """(n, f) how many keys of the row are larger, or as large and further left."""
    mine, other = keys[:, :, None], keys[:, None, :]
    place = jnp.arange(keys.shape[1])
    before = (other > mine) | ((other == mine) & (place < place[:, None]))
    return before.sum(axis=-1, dtype=jnp.int32)


def _by_threshold(keys: Array, top_k: Array) -> Array:
    threshold = _smallest_selected(keys, top_k)
    greater, equal = keys > threshold, keys == threshold
    missing = top_k - greater.sum(axis=-1, keepdims=True, dtype=jnp.int32)

    def first_of_equal() -> Array:
        return greater | (equal & (jnp.cumsum(equal, axis=-1, dtype=jnp.int32) <= missing))

    def all_of_equal() -> Array:
        return greater | (equal & (missing > 0))

    tied = (equal.sum(axis=-1, keepdims=True, dtype=jnp.int32) > missing) & (missing > 0)
    mask: Array = jax.lax.cond(tied.any(), first_of_equal, all_of_equal)
    return mask


def _smallest_selected(keys: Array, top_k: Array) -> Array:
    """(*b, 1) an integer that ``top_k`` keys of the row reach, and if possible no more.

    Found from its highest bit down. On CPU the search ends when all rows have it, after about 20 of 32 bits
    where no keys are equal; elsewhere a loop of unknown length would have to ask the device after each step.
    """
    info = jnp.iinfo(keys.dtype)
    pieces, early = _pieces(keys), backends.platform() == "cpu"
    low = jnp.full((*keys.shape[:-1], 1), info.min, keys.dtype)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        number, _, found = state
        return (number < info.bits) & ~(early & found.all())

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, low, found = state
        # The highest bit is the sign's: adding it to the least integer overflows into 0, as it should.
        higher = low + (jnp.ones((), keys.dtype) << (info.bits - 1 - number))
        each = sum(((piece >= higher).astype(jnp.int32) for piece in pieces), start=jnp.int32(0))
        reached = each.sum(axis=-1, keepdims=True)
        return number + 1, jnp.where(reached >= top_k, higher, low), found | (reached == top_k)

    start = jnp.zeros((), keys.dtype), low, jnp.zeros(low.shape, bool)
    return jax.lax.while_loop(unfinished, step, start)[1]


def _pieces(keys: Array) -> list[Array]:
    """The columns, completed by the least integer, in pieces that are counted side by side.

    XLA makes vectors of a sum of pieces, not of one along the columns: on CPU 35 us against 200, of 11,008.
    """
    count = keys.shape[-1]
    length = max(PIECE, -(-count // MOST_PIECES))
    least = jnp.iinfo(keys.dtype).min
    missing = -count % length
    padding = [(0, 0)] * (keys.ndim - 1) + [(0, missing)]
    padded = jnp.pad(keys, padding, constant_values=least) if missing else keys
    return jnp.split(padded, padded.shape[-1] // length, axis=-1)


def _write_columns(place: Array, top_k: int) -> Array:
    """(n, k) the columns at their places; those placed at k are dropped."""
    rows, count = place.shape
    row = jnp.arange(rows, dtype=jnp.int32)[:, None]
    columns = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), place.shape)
    return jnp.zeros((rows, top_k), jnp.int32).at[row, place].set(columns, mode="drop")
