"""The plain forms: all neurons, and all neurons with those that are not selected set to zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.dtypes import accumulator
from sparsejax.ops.sparse_ffn.weights import FFNWeights, activated

FEW_TOKENS = 48
"""Most tokens, of more than one, that stand on the right of their product with the weights, since XLA's
products on CPU rearrange the right side in memory first. 2 tokens and 2,048 neurons of width 512 take 0.5 ms
so and 1.0 the other way round, 16 1.3 and 1.5, and 64 about as long either way."""


def dense_ffn(inputs: Array, weights: FFNWeights, *, activation: str = "gelu") -> Array:
    """All neurons of the FFN.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.

    Returns:
      (*b, o) in the dtype of the inputs; products of 16-bit numbers are summed in float32.

    Example:
      >>> dense_ffn(jnp.ones((2, 3)), FFNWeights(jnp.ones((5, 3)), jnp.ones((5, 3))), activation="relu")[0]
      Array([15., 15., 15.], dtype=float32)

    Source: specs/sprout.md section 1.2.
    """
    return masked_ffn(inputs, weights, None, activation=activation)


def masked_ffn(inputs: Array, weights: FFNWeights, gates: Array | None, *, activation: str = "gelu") -> Array:
    """All neurons, their sums multiplied by ``gates`` before the activation, whose value at 0 is 0.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      gates: (*b, f), bool or numbers with a gradient; None is all ones.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.

    Returns:
      (*b, o), as `dense_ffn`.

    Example:
      >>> weights = FFNWeights(jnp.ones((5, 3)), jnp.ones((5, 3)))
      >>> gates = jnp.array([[True, False, False, True, False]])
      >>> masked_ffn(jnp.ones((1, 3)), weights, gates, activation="relu")
      Array([[6., 6., 6.]], dtype=float32)

    Source: specs/sprout.md section 1.2.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    gates = None if gates is None else gates.reshape(-1, weights.w_in.shape[0])
    outputs = neuron_outputs(flat, weights, gates, activation)
    return with_bias(outputs, weights, inputs)


def neuron_outputs(flat: Array, weights: FFNWeights, gates: Array | None, activation: str) -> Array:
    """What the given neurons add to the output, without its bias: (n, o) in float32 at least.

    Args:
      flat: (n, d) inputs.
      weights: of some or all neurons.
      gates: (n, f) or (f,) factors of the neurons' sums, or None.
      activation: a name in `ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
    """
    hidden = hidden_values(flat, weights, gates, activation)
    hidden = hidden.astype(weights.w_out.dtype)
    return jnp.matmul(
        hidden, weights.w_out, preferred_element_type=accumulator(hidden.dtype, weights.w_out.dtype)
    )


def hidden_values(flat: Array, weights: FFNWeights, gates: Array | None, activation: str) -> Array:
    """What the given neurons send on: (n, f) in float32 at least. Arguments as for `neuron_outputs`."""
    sums = _along_rows(flat, weights.w_in, weights.b_in)
    if gates is not None:
        sums = jnp.where(gates, sums, 0) if gates.dtype == jnp.bool_ else sums * gates
    if weights.w_gate is None:
        return activated(activation, sums)
    return activated(activation, sums, _along_rows(flat, weights.w_gate, weights.b_gate))


def with_bias(outputs: Array, weights: FFNWeights, inputs: Array) -> Array:
    """Sums of `neuron_outputs`, with the output's bias, in the leading axes and the dtype of ``inputs``."""
    if weights.b_out is not None:
        outputs = outputs + weights.b_out
    return outputs.reshape(*inputs.shape[:-1], weights.w_out.shape[1]).astype(inputs.dtype)


def _along_rows(left: Array, rows: Array, bias: Array | None) -> Array:
    """The products (n, f) of (n, d) with (f, d).

    Written with a transposed matrix, XLA on CPU would first copy it for a single token: 192 ms against 13 at
    11,008 rows of 4,096.
    """
    dtype = jnp.promote_types(left.dtype, rows.dtype)
    left, rows = left.astype(dtype), rows.astype(dtype)
    turned = 1 < len(left) <= FEW_TOKENS
    pair = (rows, left) if turned else (left, rows)
    numbers = (((1,), (1,)), ((), ()))
    product = jax.lax.dot_general(*pair, numbers, preferred_element_type=accumulator(dtype))
    product = product.T if turned else product
    return product if bias is None else product + bias
