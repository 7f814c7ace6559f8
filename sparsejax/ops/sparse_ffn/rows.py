"""Products with some rows of a matrix, as the compiler of each platform reads them without a copy.

On CPU the rows that feed a matrix product are copied to memory first, and a sum over them is computed number
by number; both take two to four times as long as reading the rows. So the sums are written out as terms, each
a gather: the compiler fuses them into one loop over vectors, whose pieces run on all threads. 1,088 of 11,008
rows of 4,096 float32 numbers take 1.2 ms along the rows and 1.0 across them, 15 to 18 GB/s of the 22 that
reading the whole matrix reaches; gathered first they take 2.4 and 3.0 (two cores).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator

PIECES = (16, 8, 4)
"""Pieces of a row that are added to each other: the first number of them that leaves pieces of `LANES`."""

LANES = (128, 16)
"""Numbers that a piece holds a multiple of, the better one first: both products with 205 rows of 512 take 90
us by 4 pieces of 128, 98 by 16 of 32."""

TOGETHER = 64
"""Rows that one pass across them adds up, at most; for several vectors half as many, since 8 by 64 take 4 s
to compile. A single pass runs on one thread, which is faster for so few rows: 8 tokens with 61 of 2,048
neurons each take 0.5 ms so, and 1.4 in two passes."""

Kept = tuple[Array, Array, Array]
"""The arguments of a product, for its gradient."""


@jax.custom_vjp
def row_products(matrix: Array, indices: Array, inputs: Array) -> Array:
    """Products (n, k) of vectors (n, d) with the rows ``indices`` of a matrix, in float32 at least.

    Args:
      matrix: (f, d).
      indices: int32 (k,), k > 0, of rows that exist.
      inputs: (n, d); on CPU a few, since each reads the rows again from the cache.

    Example:
      >>> row_products(jnp.arange(6.0).reshape(3, 2), jnp.array([2, 0]), jnp.ones((1, 2))).tolist()
      [[9.0, 1.0]]
    """
    wide = accumulator(matrix.dtype, inputs.dtype)
    width = matrix.shape[1]
    fits = (pieces for lanes in LANES for pieces in PIECES if width % (pieces * lanes) == 0)
    pieces = next(fits, 0)
    if not pieces or backends.platform() != "cpu":
        return jnp.matmul(inputs, matrix[indices].T, preferred_element_type=wide)
    cut = matrix.reshape(-1, width // pieces)
    parts = inputs.astype(wide).reshape(len(inputs), pieces, -1)
    terms = (
        _rows(cut, indices * pieces + piece).astype(wide)[:, None] * parts[:, piece]
        for piece in range(pieces)
    )
    lanes = sum(terms, start=jnp.zeros((), wide))
    return jnp.matmul(lanes, jnp.ones(lanes.shape[-1], wide)).T


@jax.custom_vjp
def row_sum(values: Array, matrix: Array, indices: Array) -> Array:
    """The sums (n, o) of the rows ``indices``, each times its value, in float32 at least.

    Args:
      values: (n, k); on CPU of a few n, as in `row_products`.
      matrix: (f, o).
      indices: int32 (k,), k > 0, of rows that exist.

    Example:
      >>> row_sum(jnp.array([[1.0, 10.0]]), jnp.arange(6.0).reshape(3, 2), jnp.array([2, 0])).tolist()
      [[4.0, 15.0]]
    """
    wide = accumulator(matrix.dtype, values.dtype)
    if backends.platform() != "cpu":
        return jnp.matmul(values.astype(matrix.dtype), matrix[indices], preferred_element_type=wide)
    passes = -(-len(indices) // (TOGETHER if len(values) == 1 else TOGETHER // 2))
    if passes > 1:
        passes += passes % 2  # for two threads: 3 passes over 192 rows of 512 take 50 us more than 4
    together = -(-len(indices) // passes)
    missing = together * passes - len(indices)
    factors = jnp.pad(values.astype(matrix.dtype).astype(wide), ((0, 0), (0, missing)))
    factors = factors.T.reshape(passes, together, len(values))
    listed = jnp.pad(indices, (0, missing), mode="edge").reshape(passes, together)
    terms = (
        _rows(matrix, listed[:, row]).astype(wide)[:, None] * factors[:, row, :, None]
        for row in range(together)
    )
    sums = sum(terms, start=jnp.zeros((), wide))
    # A loop, since the terms would be fused with a sum over passes, and no longer be vectors.
    total: Array = jax.lax.fori_loop(1, passes, lambda number, total: total + sums[number], sums[0])
    return total


def _products_forward(matrix: Array, indices: Array, inputs: Array) -> tuple[Array, Kept]:
    return row_products(matrix, indices, inputs), (matrix, indices, inputs)


def _products_backward(kept: Kept, cotangent: Array) -> tuple[Array, None, Array]:
    matrix, indices, inputs = kept
    of_inputs = row_sum(cotangent, matrix, indices).astype(inputs.dtype)
    return _added(matrix, indices, cotangent, inputs), None, of_inputs


def _sum_forward(values: Array, matrix: Array, indices: Array) -> tuple[Array, Kept]:
    return row_sum(values, matrix, indices), (values, matrix, indices)


def _sum_backward(kept: Kept, cotangent: Array) -> tuple[Array, Array, None]:
    values, matrix, indices = kept
    of_values = row_products(matrix, indices, cotangent).astype(values.dtype)
    return of_values, _added(matrix, indices, values, cotangent), None


row_products.defvjp(_products_forward, _products_backward)
row_sum.defvjp(_sum_forward, _sum_backward)


def _added(matrix: Array, indices: Array, values: Array, vectors: Array) -> Array:
    """The gradient of a matrix: each listed row gets its values' sum of vectors."""
    wide = accumulator(matrix.dtype, vectors.dtype)
    rows = jnp.matmul(values.T.astype(wide), vectors.astype(wide))
    return jnp.zeros(matrix.shape, wide).at[indices].add(rows).astype(matrix.dtype)


def _rows(matrix: Array, indices: Array) -> Array:
    return matrix.at[indices].get(mode="promise_in_bounds")
