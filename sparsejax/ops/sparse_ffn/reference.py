"""The plain forms: all neurons, and all neurons with those that are not selected set to zero."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from sparsejax.ops.sparse_ffn.weights import ACTIVATIONS, FFNWeights


def dense_ffn(inputs: Array, weights: FFNWeights, *, activation: str = "gelu") -> Array:
    """All neurons of the FFN.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      activation: a name in `ACTIVATIONS`.

    Returns:
      (*b, d) in the dtype of the inputs; products of 16-bit numbers are summed in float32.

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
      activation: a name in `ACTIVATIONS`.

    Returns:
      (*b, d), as `dense_ffn`.

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
    """What the given neurons add to the output, without its bias: (n, d) in float32 at least.

    Args:
      flat: (n, d) inputs.
      weights: of some or all neurons.
      gates: (n, f) or (f,) factors of the neurons' sums, or None.
      activation: a name in `ACTIVATIONS`.
    """
    hidden = hidden_values(flat, weights, gates, activation)
    return _product(hidden.astype(weights.w_out.dtype), weights.w_out, None)


def hidden_values(flat: Array, weights: FFNWeights, gates: Array | None, activation: str) -> Array:
    """What the given neurons send on: (n, f) in float32 at least. Arguments as for `neuron_outputs`."""
    sums = _product(flat, weights.w_in.T, weights.b_in)
    if gates is not None:
        sums = jnp.where(gates, sums, 0) if gates.dtype == jnp.bool_ else sums * gates
    function = ACTIVATIONS[activation]
    if weights.w_gate is None:
        return function(sums)
    return function(_product(flat, weights.w_gate.T, weights.b_gate)) * sums


def with_bias(outputs: Array, weights: FFNWeights, inputs: Array) -> Array:
    """Sums of `neuron_outputs`, with the output's bias, in the shape and dtype of ``inputs``."""
    if weights.b_out is not None:
        outputs = outputs + weights.b_out
    return outputs.reshape(inputs.shape).astype(inputs.dtype)


def _product(left: Array, right: Array, bias: Array | None) -> Array:
    wide = jnp.promote_types(jnp.promote_types(left.dtype, right.dtype), jnp.float32)
    product = jnp.matmul(left, right, preferred_element_type=wide)
    return product if bias is None else product + bias
