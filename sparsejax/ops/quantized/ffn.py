"""Feed-forward parts with quantised matrices, of which only chosen tiles of neurons are read."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpy.typing import ArrayLike

from sparsejax.ops import backends
from sparsejax.ops.quantized.kept import kept_tiles
from sparsejax.ops.quantized.matmul import FEW_TOKENS, each_token, kernel_product
from sparsejax.ops.quantized.matvec import matvec
from sparsejax.ops.quantized.planes import ROW_TILE
from sparsejax.ops.quantized.taking import (
    dequantized_columns,
    dequantized_rows,
    lane_tiles,
    neurons_of,
    of_sub_blocks,
    take_columns,
    take_rows,
)
from sparsejax.ops.quantized.tensor import QuantizedTensor
from sparsejax.ops.sparse_ffn.weights import activated, check_activation


class QuantizedFFN(NamedTuple):
    """The matrices of a feed-forward part as a GGUF file holds them, and its biases.

    Attributes:
      w_in: (f, d), GGUF's ffn_up.
      w_out: (o, f), GGUF's ffn_down, whose blocks lie along the neurons; fastest in the order "columns".
      w_gate: (f, d), GGUF's ffn_gate, of gated ones.
      b_in: (f,) added to ``x w_in``.
      b_gate: (f,) added to ``x w_gate``.
      b_out: (o,) added to the output.

    Example:
      >>> matrix = QuantizedTensor.quantize(np.ones((64, 32)), "q8_0")
      >>> QuantizedFFN(matrix, QuantizedTensor.quantize(np.ones((32, 64)), "q8_0", order="columns")).w_gate
    """

    w_in: QuantizedTensor
    w_out: QuantizedTensor
    w_gate: QuantizedTensor | None = None
    b_in: Array | None = None
    b_gate: Array | None = None
    b_out: Array | None = None


class _Plan(NamedTuple):
    activation: str
    backend: str


_Matrices = tuple[QuantizedTensor, QuantizedTensor, QuantizedTensor | None]
_Biases = tuple[Array | None, Array | None]


def sparse_quantized_ffn(
    inputs: Array,
    weights: QuantizedFFN,
    tiles: ArrayLike | None,
    *,
    activation: str = "silu",
    backend: str = "auto",
) -> Array:
    """What the neurons of chosen tiles send on, read from quantised matrices and nothing else read.

    Args:
      inputs: (*b, d), floating point.
      weights: of f neurons; any named tuple with the fields of `QuantizedFFN`.
      tiles: integers (k,), the same tiles of 32 neurons for all tokens, or (*b, k), each token's own; None
        takes all. A tile that is out of range adds nothing, one that is named twice adds twice.
      activation: a name in `ACTIVATIONS` of `sparse_ffn` or, of gated FFNs, in `GATED_ACTIVATIONS`.
      backend: "reference" (all neurons, those of other tiles multiplied by 0), "xla", "pallas" or "auto".

    Returns:
      (*b, o) in the dtype of ``inputs``, summed in float32. Inputs and biases have a gradient.

    Raises:
      ValueError: shapes that do not fit, or an unknown activation or backend.

    Example:
      >>> w_in = QuantizedTensor.quantize(np.ones((64, 32)), "q8_0")
      >>> w_out = QuantizedTensor.quantize(np.ones((32, 64)), "q8_0", order="columns")
      >>> outputs = sparse_quantized_ffn(jnp.ones(32), QuantizedFFN(w_in, w_out), [1], activation="relu")
      >>> outputs[0].round().tolist()
      1024.0

    Source: specs/sparse_inference.md sections 13 and 14.
    """
    chosen = backends.resolve(backend, backends.QUANTIZED, dtype=inputs.dtype)
    _check(inputs, weights, activation)
    neurons, width = weights.w_in.shape
    tiles = jnp.arange(-(-neurons // ROW_TILE)) if tiles is None else jnp.asarray(tiles)
    shared = tiles.ndim == 1
    if not jnp.issubdtype(tiles.dtype, jnp.integer) or not (shared or tiles.shape[:-1] == inputs.shape[:-1]):
        raise ValueError(
            f"tiles must be integers (k,) or {(*inputs.shape[:-1], 'k')}, not {tiles.dtype} {tiles.shape}"
        )
    flat = inputs.reshape(-1, width).astype(jnp.promote_types(inputs.dtype, jnp.float32))
    if not flat.shape[0] or not tiles.shape[-1]:
        outputs = jnp.zeros((flat.shape[0], weights.w_out.shape[0]), flat.dtype)
    else:
        tiles = (tiles if shared else tiles.reshape(-1, tiles.shape[-1])).astype(jnp.int32)
        matrices = weights.w_in, weights.w_out, weights.w_gate
        plan, biases = _Plan(activation, chosen), (weights.b_in, weights.b_gate)
        outputs = _ffn(plan, flat, biases, matrices, tiles)
    if weights.b_out is not None:
        outputs = outputs + weights.b_out
    return outputs.reshape(*inputs.shape[:-1], weights.w_out.shape[0]).astype(inputs.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ffn(plan: _Plan, flat: Array, biases: _Biases, matrices: _Matrices, tiles: Array) -> Array:
    if plan.backend == "reference":
        return _reference(plan, flat, biases, matrices, tiles)
    tiles = kept_tiles(tiles, -(-matrices[0].shape[0] // ROW_TILE))
    plain = any(part is not None and part.layout.plain for part in matrices)
    if tiles.ndim == 1 or (plan.backend == "xla" and len(flat) <= FEW_TOKENS and not plain):
        return _products(plan, flat, biases, matrices, tiles)
    return each_token(lambda row, mine: _products(plan, row[None], biases, matrices, mine)[0], flat, tiles)


def _forward(
    plan: _Plan, flat: Array, biases: _Biases, matrices: _Matrices, tiles: Array
) -> tuple[Array, Any]:
    return _ffn(plan, flat, biases, matrices, tiles), (flat, biases, matrices, tiles)


def _backward(plan: _Plan, kept: Any, cotangent: Array) -> tuple[Array, _Biases, None, None]:
    flat, biases, matrices, tiles = kept

    def outputs(flat: Array, biases: _Biases) -> Array:
        if tiles.ndim == 1:
            return _dequantized(plan, flat, biases, matrices, tiles)
        return each_token(
            lambda row, mine: _dequantized(plan, row[None], biases, matrices, mine)[0], flat, tiles
        )

    _, pull_back = jax.vjp(outputs, flat, biases)
    return (*pull_back(cotangent), None, None)


_ffn.defvjp(_forward, _backward)


def _reference(plan: _Plan, flat: Array, biases: _Biases, matrices: _Matrices, tiles: Array) -> Array:
    w_in, w_out, w_gate = matrices
    counts = jax.vmap(partial(_counts, neurons=w_in.shape[0]))(jnp.atleast_2d(tiles))

    def sums(weights: QuantizedTensor, bias: Array | None) -> Array:
        return _with(flat @ weights.dequantize(flat.dtype).T, bias)

    gate = None if w_gate is None else sums(w_gate, biases[1])
    hidden = activated(plan.activation, sums(w_in, biases[0]), gate)
    return (hidden * counts) @ w_out.dequantize(flat.dtype).T


def _counts(tiles: Array, neurons: int) -> Array:
    """float32 (f,): how often each neuron is chosen."""
    chosen, inside = neurons_of(tiles, neurons)
    return jnp.zeros(neurons).at[chosen].add(inside.astype(jnp.float32))


def _products(plan: _Plan, flat: Array, biases: _Biases, matrices: _Matrices, tiles: Array) -> Array:
    """(n, o) with tiles (k,), the same for all tokens, or (n, k)."""
    if plan.backend == "xla" and flat.shape[0] > FEW_TOKENS:
        return _dequantized(plan, flat, biases, matrices, tiles)
    w_in, w_out, w_gate = matrices
    neurons, inside = neurons_of(tiles, w_in.shape[0])

    def sums(weights: QuantizedTensor, bias: Array | None) -> Array:
        return _with(
            _row_products(plan.backend, flat, weights, tiles), None if bias is None else bias[neurons]
        )

    gate = None if w_gate is None else sums(w_gate, biases[1])
    hidden = activated(plan.activation, sums(w_in, biases[0]), gate)
    return _column_products(plan.backend, jnp.where(inside, hidden, 0), w_out, tiles)


def _dequantized(plan: _Plan, flat: Array, biases: _Biases, matrices: _Matrices, tiles: Array) -> Array:
    """As `_products` with tiles (k,), by dense products with the chosen neurons' numbers."""
    w_in, w_out, w_gate = matrices
    neurons, inside = neurons_of(tiles, w_in.shape[0])

    def sums(weights: QuantizedTensor, bias: Array | None) -> Array:
        rows = dequantized_rows(weights, tiles).astype(flat.dtype)
        return _with(flat @ rows.T, None if bias is None else bias[neurons])

    gate = None if w_gate is None else sums(w_gate, biases[1])
    hidden = activated(plan.activation, sums(w_in, biases[0]), gate)
    columns = dequantized_columns(w_out, tiles).astype(flat.dtype)
    return jnp.where(inside, hidden, 0) @ columns.T


def _row_products(backend: str, flat: Array, weights: QuantizedTensor, tiles: Array) -> Array:
    """(n, 32 k): tokens times the rows of tiles (k,) or (n, k)."""
    if weights.layout.plain:
        return flat @ dequantized_rows(weights, tiles).astype(flat.dtype).T
    if backend.startswith("pallas"):
        return kernel_product(backend, flat, weights, lane_tiles(weights, tiles), None).astype(flat.dtype)
    own = tiles.ndim == 2
    taken = (jax.vmap(take_rows, (None, 0)) if own else take_rows)(weights, tiles)
    return matvec(flat, taken, weights.layout, weights.order, own=own).reshape(len(flat), -1)


def _column_products(backend: str, hidden: Array, weights: QuantizedTensor, tiles: Array) -> Array:
    """(n, o): hidden values times the columns of tiles (k,) or (n, k)."""
    if weights.layout.plain:
        return hidden @ dequantized_columns(weights, tiles).astype(hidden.dtype).T
    if backend.startswith("pallas"):
        last = weights.shape[1] // ROW_TILE - 1
        of_rows = jnp.arange(weights.planes["low"].shape[int(weights.order == "columns")], dtype=jnp.int32)
        outputs = kernel_product(backend, hidden, weights, of_rows, jnp.clip(tiles, 0, last))
    else:
        own, layout = tiles.ndim == 2, of_sub_blocks(weights.layout)
        taken = (jax.vmap(take_columns, (None, 0)) if own else take_columns)(weights, tiles)
        outputs = matvec(hidden, taken, layout, weights.order, own=own).reshape(len(hidden), -1)
    return outputs[:, : weights.shape[0]].astype(hidden.dtype)


def _with(sums: Array, bias: Array | None) -> Array:
    return sums if bias is None else sums + bias


def _check(inputs: Array, weights: QuantizedFFN, activation: str) -> None:
    w_in, w_out = weights.w_in, weights.w_out
    check_activation(activation, gated=weights.w_gate is not None)
    if w_in.ndim != 2 or inputs.ndim == 0 or inputs.shape[-1] != w_in.shape[1]:
        raise ValueError(f"inputs {inputs.shape} do not fit neurons with weights {w_in.shape}")
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(f"inputs must be floating point, not {inputs.dtype}")
    if w_out.ndim != 2 or w_out.shape[1] != w_in.shape[0]:
        raise ValueError(
            f"w_out must have shape (o, {w_in.shape[0]}), blocks along neurons, not {w_out.shape}"
        )
    if weights.w_gate is not None and weights.w_gate.shape != w_in.shape:
        raise ValueError(f"w_gate must have shape {w_in.shape}, not {weights.w_gate.shape}")
    for name, bias, size in (
        ("b_in", weights.b_in, w_in.shape[0]),
        ("b_gate", weights.b_gate, w_in.shape[0]),
        ("b_out", weights.b_out, w_out.shape[0]),
    ):
        if bias is not None and bias.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), not {bias.shape}")
