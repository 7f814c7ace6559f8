"""Tokens grouped by the blocks of neurons that they use."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Tiles(NamedTuple):
    """Work cut into equal pieces, each of one block of neurons and some of the tokens that use it.

    Attributes:
      tokens: (tiles, rows) int32, ascending in a tile; a row that stands empty holds the number of tokens or
        more, a different number in each of the tile's rows.
      blocks: (tiles,) int32 block of each tile, ascending.
      used: int32 () tiles that hold tokens; those after them are empty. Their number with these is even.
    """

    tokens: Array
    blocks: Array
    used: Array


def tiles_of(mask: Array, *, rows: int, most: int) -> Tiles:
    """The tiles of an assignment. A block with more tokens than a tile has rows gets further tiles.

    Args:
      mask: bool (n, blocks), the blocks that each token uses.
      rows: tokens of a tile.
      most: blocks that a token uses at most.

    Example:
      >>> tiles = tiles_of(jnp.array([[True, False], [True, True], [True, False]]), rows=2, most=2)
      >>> tiles.tokens[:3].tolist(), tiles.blocks[:3].tolist(), int(tiles.used)
      ([[0, 1], [2, 4], [1, 4]], [0, 0, 1], 3)
    """
    count, blocks = mask.shape
    size = tile_count(count, blocks, rows=rows, most=most)
    place = jnp.cumsum(mask, axis=0, dtype=jnp.int32)
    of_block = -(-place[-1] // rows)
    end = jnp.cumsum(of_block)
    slot = jnp.where(mask, (end - of_block) * rows + place - 1, size * rows)
    token = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], mask.shape)
    empty = jnp.tile(count + jnp.arange(rows, dtype=jnp.int32), size)
    tokens = empty.at[slot].set(token, mode="drop").reshape(size, rows)
    number = jnp.arange(size, dtype=jnp.int32)
    block = jnp.searchsorted(end, number, side="right", method="compare_all").astype(jnp.int32)
    return Tiles(tokens, jnp.minimum(block, blocks - 1), end[-1])


def tile_count(count: int, blocks: int, *, rows: int, most: int) -> int:
    """Tiles that ``count`` tokens with at most ``most`` of the blocks each can need, an even number.

    Example:
      >>> tile_count(100, 8, rows=32, most=2)
      14
    """
    most = min(most, blocks)
    needed = min((count * most + blocks * (rows - 1)) // rows, blocks * -(-count // rows))
    return needed + needed % 2
