"""What the kernels of all targets share: their arguments, padded and in blocks, and their gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.sparse_ffn.block import Plan, tile_gradient, tile_rows
from sparsejax.ops.sparse_ffn.tiles import Tiles, tiles_of
from sparsejax.ops.sparse_ffn.weights import FFNWeights, map_neurons
from sparsejax.ops.sparse_ffn.weights import activated as activated_by_name

Launch = Callable[[Plan, Array, FFNWeights, Tiles], Array]
"""(tiles, rows, d) outputs in float32 from inputs of that shape and weights in blocks (blocks, size, d),
biases (blocks, 1, size). Rows that hold no token, and tiles not used, may hold anything."""

MOST_ROWS = 128


def with_kernel(launch: Launch) -> Callable[[Array, FFNWeights, Array, int, Plan], Array]:
    """`block.block_ffn` by a kernel, with the gradient of that form."""

    def block_ffn(flat: Array, weights: FFNWeights, mask: Array, most: int, plan: Plan) -> Array:
        rows = min(MOST_ROWS, tile_rows(*mask.shape, most=most))
        rows = 1 << (rows.bit_length() - 1)  # compilers of kernels want a power of two
        return _outputs(launch, plan, flat, weights, tiles_of(mask, rows=rows, most=most))

    return block_ffn


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _outputs(launch: Launch, plan: Plan, flat: Array, weights: FFNWeights, tiles: Tiles) -> Array:
    rows = flat.at[tiles.tokens].get(mode="clip")
    outputs = launch(plan, rows, in_blocks(plan, weights), tiles)
    wide = outputs.reshape(-1, outputs.shape[-1])[:, : flat.shape[1]]
    return jnp.zeros(flat.shape, wide.dtype).at[tiles.tokens.reshape(-1)].add(wide, mode="drop")


def _forward(launch: Launch, plan: Plan, flat: Array, weights: FFNWeights, tiles: Tiles) -> tuple[Array, Any]:
    return _outputs(launch, plan, flat, weights, tiles), (flat, weights, tiles)


def _backward(launch: Launch, plan: Plan, kept: Any, cotangent: Array) -> tuple[Array, FFNWeights, None]:
    del launch
    return tile_gradient(plan, kept, cotangent)


_outputs.defvjp(_forward, _backward)


def in_blocks(plan: Plan, weights: FFNWeights) -> FFNWeights:
    """Matrices (blocks, size, d) and biases (blocks, 1, size); zeros complete the last block.

    Example:
      >>> in_blocks(Plan(4, "gelu"), FFNWeights(jnp.ones((6, 3)), jnp.ones((6, 3)))).w_in.shape
      (2, 4, 3)
    """

    def cut(part: Array) -> Array:
        missing = -part.shape[0] % plan.block_size
        padded = jnp.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
        inner = (plan.block_size, part.shape[1]) if part.ndim == 2 else (1, plan.block_size)
        return padded.reshape(-1, *inner)

    return map_neurons(cut, weights)


def activated(plan: Plan, sums: Array, gate: Array | None) -> Array:
    """Hidden values of a kernel, from the sums of both products."""
    if plan.activation != "gelu":
        return activated_by_name(plan.activation, sums, gate)
    return _gelu(sums) if gate is None else _gelu(gate) * sums


_ERF_ENDS_AT = 3.832506856900711  # where erf is one in float32
_ERF_ABOVE = (
    0.00022905065861350646,
    0.0034082910107109506,
    0.050955695062380861,
    0.18520832239976145,
    1.128379143519084,
)
_ERF_BELOW = (
    -1.1791602954361697e-7,
    0.000023547966471313185,
    0.0010179625278914885,
    0.014070470171167667,
    0.11098505178285362,
    0.49746925110067538,
    1.0,
)


def _gelu(sums: Array) -> Array:
    """The exact form by a quotient of polynomials: Triton's compiler has neither erf nor erfc."""
    x = jnp.clip(sums * 0.5**0.5, -_ERF_ENDS_AT, _ERF_ENDS_AT)
    erf = x * _polynomial(_ERF_ABOVE, x * x) / _polynomial(_ERF_BELOW, x * x)
    return 0.5 * sums * (1 + erf)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.zeros_like(x)
    for coefficient in coefficients:
        total = total * x + coefficient
    return total
