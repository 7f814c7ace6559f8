"""The neurons of a list, whoever chose them: only their rows are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.ops import backends
from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.sparse_ffn.reference import hidden_values, with_bias
from sparsejax.ops.sparse_ffn.rows import row_products, row_sum
from sparsejax.ops.sparse_ffn.weights import (
    FFNWeights,
    activated,
    check_activation,
    check_floating,
    map_neurons,
)

FEW = 8
"""Most tokens with one list whose products are sums over rows, on CPU."""

CHUNK = 256
"""Listed neurons whose rows are copied together for many tokens: 512 tokens with half of 11,008 neurons of
width 4,096 take 382 ms by 256, 430 by 1,024, 513 all at once; all neurons 672."""


def listed_ffn(
    inputs: Array, weights: FFNWeights, indices: Array, *, activation: str = "gelu", strict: bool = False
) -> Array:
    """The output of the listed neurons: ``b_out + sum_j act(w_in[j] x + b_in[j]) w_out[j]``.

    A neuron that is listed twice counts twice. Under jit an index that no neuron has adds nothing, so that
    shorter lists can be filled up with f, and an empty list gives ``b_out``.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      indices: integers (*b, k), a list per token, or (k,) for all tokens.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      strict: refuse empty lists and indices out of range; only outside of jit.

    Returns:
      (*b, o) in the dtype of ``inputs``; 16-bit products are summed in float32.

    Raises:
      ValueError: shapes that do not fit, inputs that are no floating point numbers, an unknown activation,
        or in strict mode an empty list.
      IndexError: in strict mode, an index that no neuron has; names it.

    Example:
      >>> weights = FFNWeights(jnp.ones((4, 2)), jnp.ones((4, 2)))
      >>> listed_ffn(jnp.ones(2), weights, jnp.array([3, 1, 1]), activation="relu").tolist()
      [6.0, 6.0]

    Source: specs/sparse_inference.md section 3.
    """
    indices = jnp.asarray(indices)
    check_list(inputs, weights, indices, activation)
    if strict:
        _check_strictly(indices, weights.w_in.shape[0])
    flat = inputs.reshape(-1, inputs.shape[-1])
    if indices.shape[-1] == 0 or len(flat) == 0:
        outputs = jnp.zeros((len(flat), weights.w_out.shape[1]), inputs.dtype)
    elif indices.ndim == 1 and len(flat) > 1:
        outputs = shared_outputs(flat, weights, indices, activation)
    else:
        lists = jnp.broadcast_to(indices, (*inputs.shape[:-1], indices.shape[-1]))
        outputs = own_outputs(flat, weights, lists.reshape(len(flat), -1), activation)
    return with_bias(outputs, weights, inputs)


def own_outputs(flat: Array, weights: FFNWeights, indices: Array, activation: str) -> Array:
    """The outputs (n, o), without bias, of each token's own list, in float32 at least.

    Args:
      flat: (n, d), n > 0.
      weights: of f neurons.
      indices: integers (n, k), k > 0; those that no neuron has add nothing.
      activation: a name in `ACTIVATIONS` or `GATED_ACTIVATIONS`.
    """
    if len(flat) == 1:
        return few_outputs(flat, weights, indices[0], activation)

    def one(token: tuple[Array, Array]) -> Array:
        return few_outputs(token[0][None], weights, token[1], activation)[0]

    outputs: Array = jax.lax.map(one, (flat, indices))
    return outputs


def shared_outputs(
    flat: Array, weights: FFNWeights, indices: Array, activation: str, *, gates: Array | None = None
) -> Array:
    """The same of one list for all tokens.

    Args:
      flat: (n, d), n > 0.
      weights: of f neurons.
      indices: integers (k,), k > 0; those that no neuron has add nothing.
      activation: a name in `ACTIVATIONS` or `GATED_ACTIVATIONS`.
      gates: bool (n, k), of the listed neurons those that a token keeps; None keeps all.
    """
    if len(flat) <= FEW and backends.platform() == "cpu":
        return few_outputs(flat, weights, indices, activation, gates=gates)
    return many_outputs(flat, weights, indices, activation, gates=gates)


def few_outputs(
    flat: Array, weights: FFNWeights, indices: Array, activation: str, *, gates: Array | None = None
) -> Array:
    """`shared_outputs` by sums over rows, which are read once from memory. Arguments as there."""
    # Without a barrier the search for an index would be repeated in every loop that reads its row.
    there: Array = jax.lax.optimization_barrier(jnp.clip(indices, 0, weights.w_in.shape[0] - 1))

    def sums(matrix: Array, bias: Array | None) -> Array:
        products = row_products(matrix, there, flat)
        return products if bias is None else products + bias[there]

    gate = None if weights.w_gate is None else sums(weights.w_gate, weights.b_gate)
    hidden = activated(activation, sums(weights.w_in, weights.b_in), gate)
    return row_sum(_kept(hidden, weights, indices, gates), weights.w_out, there)


def many_outputs(
    flat: Array, weights: FFNWeights, indices: Array, activation: str, *, gates: Array | None = None
) -> Array:
    """`shared_outputs` by matrix products with copies of rows, some at a time. Arguments as there."""
    count = min(CHUNK, len(indices))
    missing = -len(indices) % count
    listed = jnp.pad(indices, (0, missing), constant_values=weights.w_in.shape[0]).reshape(-1, count)
    if gates is not None:
        gates = jnp.pad(gates, ((0, 0), (0, missing))).reshape(len(flat), -1, count).swapaxes(0, 1)

    def add(total: Array, mine: tuple[Array, Array | None]) -> tuple[Array, None]:
        part = map_neurons(lambda rows: rows.at[mine[0]].get(mode="clip"), weights)
        hidden = _kept(hidden_values(flat, part, None, activation), weights, *mine)
        rounded = hidden.astype(part.w_out.dtype)
        return total + jnp.matmul(rounded, part.w_out, preferred_element_type=total.dtype), None

    wide = accumulator(flat.dtype, weights.w_in.dtype)
    zeros = jnp.zeros((len(flat), weights.w_out.shape[1]), wide)
    return jax.lax.scan(add, zeros, (listed, gates))[0]


def check_list(inputs: Array, weights: FFNWeights, indices: Array, activation: str) -> None:
    """Refuse what `listed_ffn` cannot take, by shapes and names alone.

    Raises:
      ValueError: says what is needed.
    """
    if inputs.ndim == 0 or inputs.shape[-1] != weights.w_in.shape[1]:
        raise ValueError(
            f"inputs of shape {inputs.shape} do not fit: (..., {weights.w_in.shape[1]}) is needed"
        )
    check_floating(inputs)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(f"indices must be integers, not {indices.dtype}; a mask goes through mask_indices")
    if indices.ndim != 1 and indices.shape[:-1] != inputs.shape[:-1]:
        raise ValueError(
            f"indices of shape {indices.shape} do not fit inputs {inputs.shape}: (k,) or "
            f"{(*inputs.shape[:-1], 'k')} is needed"
        )
    check_activation(activation, gated=weights.w_gate is not None)


def _check_strictly(indices: Array, neurons: int) -> None:
    if isinstance(indices, jax.core.Tracer):
        raise ValueError("strict needs indices with values; call it outside of jit, or without strict")
    values = np.asarray(indices)
    if values.shape[-1] == 0:
        raise ValueError("no active neurons: the list of indices is empty")
    outside = values[(values < 0) | (values >= neurons)]
    if len(outside):
        raise IndexError(f"neuron index {outside[0]} is out of range: there are {neurons} neurons")


def _kept(hidden: Array, weights: FFNWeights, indices: Array, gates: Array | None) -> Array:
    """Zero for neurons that do not exist, and for those that a token does not keep."""
    exist = (indices >= 0) & (indices < weights.w_in.shape[0])
    return jnp.where(exist if gates is None else exist & gates, hidden, 0)
