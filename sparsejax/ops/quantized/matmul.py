"""Products with quantised matrices: numbers are made where they are used and nowhere kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.quantized.affine import AffineTensor
from sparsejax.ops.quantized.kernel import plan_of
from sparsejax.ops.quantized.matvec import matvec
from sparsejax.ops.quantized.tensor import QuantizedTensor
from sparsejax.ops.quantized.unpacking import values_of

FEW_TOKENS = 8
"""Most tokens that are multiplied with the codes; for more, parts of the matrix become numbers once."""

PART_ROWS = 256
"""Rows that become numbers together: at 4,096 columns they take 4 MB."""


def quantized_matmul(
    inputs: Array, weights: QuantizedTensor | AffineTensor, *, backend: str = "auto"
) -> Array:
    """``inputs @ weights.T`` of a quantised matrix, summed in float32.

    Args:
      inputs: (*b, d), floating point.
      weights: (f, d), in any format and order.
      backend: "reference" makes the whole matrix float32 first; "xla" multiplies codes (few tokens) or makes
        numbers part by part (many); "pallas" is a kernel that reads codes; "auto" is what the platform likes.

    Returns:
      (*b, f) in the dtype of ``inputs``. The inputs have a gradient, the weights none.

    Raises:
      ValueError: shapes that do not fit, inputs that are no floating point numbers, or an unknown backend.

    Example:
      >>> weights = QuantizedTensor.quantize(np.ones((3, 32)), "q8_0")
      >>> quantized_matmul(jnp.ones((2, 32)), weights).round().tolist()
      [[32.0, 32.0, 32.0], [32.0, 32.0, 32.0]]

    Source: specs/sparse_inference.md sections 6 and 14.
    """
    chosen = backends.resolve(backend, backends.QUANTIZED, dtype=inputs.dtype)
    if weights.ndim != 2 or inputs.ndim == 0 or inputs.shape[-1] != weights.shape[1]:
        raise ValueError(f"inputs {inputs.shape} do not fit quantised weights {weights.shape}")
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(f"inputs must be floating point, not {inputs.dtype}")
    flat = inputs.reshape(-1, weights.shape[1])
    if not flat.shape[0]:
        return jnp.zeros((*inputs.shape[:-1], weights.shape[0]), inputs.dtype)
    wide = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    if isinstance(weights, AffineTensor) or weights.layout.plain or chosen == "reference":
        outputs = wide @ weights.dequantize(wide.dtype).T
    else:
        outputs = _product(chosen, wide, weights)
    return outputs.reshape(*inputs.shape[:-1], weights.shape[0]).astype(inputs.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(backend: str, flat: Array, weights: QuantizedTensor) -> Array:
    """(n, f) of inputs (n, d), without a dense matrix."""
    if backend.startswith("pallas"):
        tiles = jnp.arange(_tiles(weights), dtype=jnp.int32)
        outputs = kernel_product(backend, flat, weights, tiles, None)
    elif flat.shape[0] <= FEW_TOKENS:
        outputs = matvec(flat, weights.planes, weights.layout, weights.order).reshape(len(flat), -1)
    else:
        outputs = _by_parts(flat, weights)
    return outputs[:, : weights.shape[0]]


def _forward(backend: str, flat: Array, weights: QuantizedTensor) -> tuple[Array, Any]:
    return _product(backend, flat, weights), weights


def _backward(backend: str, weights: QuantizedTensor, cotangent: Array) -> tuple[Array, None]:
    del backend
    return cotangent @ weights.dequantize(cotangent.dtype), None


_product.defvjp(_forward, _backward)


def kernel_product(
    backend: str, x: Array, weights: QuantizedTensor, tiles: Array, blocks: Array | None
) -> Array:
    """Products by a Pallas backend, whose compilers take a second to import.

    Args:
      backend: "pallas_gpu" or "pallas_tpu".
      x: (n, columns), those of ``blocks`` where there are such.
      weights: in a format of blocks.
      tiles: int32 (k,) of the planes.
      blocks: int32 (j,) sub-blocks of columns, or None for all.

    Returns:
      float32 (n, k lanes).
    """
    plan = plan_of(weights.format, weights.order, x.shape[1] // 32, chosen=blocks is not None)
    if backend == "pallas_gpu":
        from sparsejax.ops.quantized import pallas_gpu

        return pallas_gpu.product(plan, x, weights.planes, tiles, blocks)
    from sparsejax.ops.quantized import pallas_tpu

    return pallas_tpu.product(plan, x, weights.planes, tiles, blocks)


def each_token(function: Callable[..., Array], *of_tokens: Array) -> Array:
    """``function`` of each token; a single one needs no loop.

    Args:
      function: of the rows of ``of_tokens``.
      of_tokens: (n, ..) each.
    """
    if of_tokens[0].shape[0] == 1:
        return function(*(part[0] for part in of_tokens))[None]
    results: Array = jax.lax.map(lambda parts: function(*parts), of_tokens)
    return results


def _tiles(weights: QuantizedTensor) -> int:
    codes: Array = weights.planes["low"]
    return codes.shape[int(weights.order == "columns")]


def _by_parts(flat: Array, weights: QuantizedTensor) -> Array:
    """(n, padded f): a loop over parts of the rows, the last of which may overlap the one before."""
    tiles, lanes, axis = _tiles(weights), weights.lanes, int(weights.order == "columns")
    size = min(tiles, max(1, PART_ROWS // lanes))

    def add(number: Array, outputs: Array) -> Array:
        start = jnp.minimum(number * size, tiles - size)
        part = {
            name: jax.lax.dynamic_slice_in_dim(plane, start, size, axis)
            for name, plane in weights.planes.items()
        }
        values = values_of(part, weights.layout, weights.order)
        matrix = values.transpose((1, 2, 0, 3) if weights.order == "rows" else (0, 2, 1, 3))
        products = flat @ matrix.reshape(flat.shape[1], size * lanes).astype(flat.dtype)
        return jax.lax.dynamic_update_slice(outputs, products, (jnp.zeros_like(start), start * lanes))

    nothing = jnp.zeros((flat.shape[0], tiles * lanes), flat.dtype)
    outputs: Array = jax.lax.fori_loop(0, math.ceil(tiles / size), add, nothing)
    return outputs
