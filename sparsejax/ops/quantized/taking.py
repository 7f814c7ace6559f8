"""Whole tiles of neurons out of planes: rows of the matrices into the FFN, columns of the one out of it."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from sparsejax.ops.quantized.formats import SUB_BLOCK, BlockFormat
from sparsejax.ops.quantized.planes import ROW_TILE
from sparsejax.ops.quantized.tensor import QuantizedTensor
from sparsejax.ops.quantized.unpacking import as_matrix, values_of


def neurons_of(tiles: Array, count: int) -> tuple[Array, Array]:
    """The neurons (*b, 32 k) of tiles, those out of range replaced, and which of them are in range.

    Args:
      tiles: int32 (*b, k).
      count: neurons that there are.

    Example:
      >>> neurons, inside = neurons_of(jnp.array([1, 9]), 40)
      >>> int(neurons[0]), int(inside.sum())
      (32, 8)
    """
    neurons = (tiles[..., None] * ROW_TILE + jnp.arange(ROW_TILE)).reshape(*tiles.shape[:-1], -1)
    return jnp.clip(neurons, 0, count - 1), (neurons >= 0) & (neurons < count)


def lane_tiles(weights: QuantizedTensor, tiles: Array) -> Array:
    """The tiles of the planes that hold the given tiles of 32 rows.

    Args:
      weights: with at most 32 rows in a tile of its planes.
      tiles: int32 (k,), clipped to the range.

    Raises:
      ValueError: the tensor's tiles are larger.
    """
    if ROW_TILE % weights.lanes:
        raise ValueError(f"tiles of {ROW_TILE} rows cannot be taken from planes with {weights.lanes} lanes")
    parts = ROW_TILE // weights.lanes
    tiles = jnp.clip(tiles, 0, -(-weights.shape[0] // ROW_TILE) - 1)
    return (tiles[:, None] * parts + jnp.arange(parts, dtype=tiles.dtype)).reshape(-1)


def take_rows(weights: QuantizedTensor, tiles: Array) -> dict[str, Array]:
    """The planes of whole tiles of 32 rows.

    Args:
      weights: in a format of blocks.
      tiles: int32 (k,).
    """
    taken, axis = lane_tiles(weights, tiles), int(weights.order == "columns")
    return {name: jnp.take(plane, taken, axis=axis, mode="clip") for name, plane in weights.planes.items()}


def take_columns(weights: QuantizedTensor, tiles: Array) -> dict[str, Array]:
    """The planes of whole sub-blocks of 32 columns, "d" and "m" with one row for each of them.

    Args:
      weights: in a format of blocks.
      tiles: int32 (k,).
    """
    axis, blocks = int(weights.order == "rows"), weights.layout.block // SUB_BLOCK
    tiles = jnp.clip(tiles, 0, weights.shape[1] // SUB_BLOCK - 1)

    def take(name: str, plane: Array) -> Array:
        chosen = tiles // blocks if name in ("d", "m") else tiles
        return jnp.take(plane, chosen, axis=axis, mode="clip")

    return {name: take(name, plane) for name, plane in weights.planes.items()}


def of_sub_blocks(layout: BlockFormat) -> BlockFormat:
    """The format of what `take_columns` takes: every sub-block is a block."""
    return layout._replace(block=SUB_BLOCK)


def dequantized_rows(weights: QuantizedTensor, tiles: Array) -> Array:
    """float32 (32 k, c): the numbers of tiles of rows; rows out of range hold those of others.

    Args:
      weights: a matrix in any format.
      tiles: int32 (k,).
    """
    if weights.layout.plain:
        neurons, _ = neurons_of(tiles, weights.shape[0])
        rows = jnp.take(weights.planes["values"], neurons, axis=int(weights.order == "columns"), mode="clip")
        return (rows.T if weights.order == "columns" else rows).astype(jnp.float32)
    values = values_of(take_rows(weights, tiles), weights.layout, weights.order)
    return as_matrix(values, tiles.shape[0] * ROW_TILE, weights.order)


def dequantized_columns(weights: QuantizedTensor, tiles: Array) -> Array:
    """float32 (r, 32 k): the numbers of sub-blocks of columns.

    Args:
      weights: a matrix in any format.
      tiles: int32 (k,).
    """
    if weights.layout.plain:
        neurons, _ = neurons_of(tiles, weights.shape[1])
        columns = jnp.take(weights.planes["values"], neurons, axis=int(weights.order == "rows"), mode="clip")
        return (columns.T if weights.order == "columns" else columns).astype(jnp.float32)
    values = values_of(take_columns(weights, tiles), of_sub_blocks(weights.layout), weights.order)
    return as_matrix(values, weights.shape[0], weights.order)
