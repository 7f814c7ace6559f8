"""The parts of a block as functions of arrays, whose matrices may be quantised."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.ops.quantized import QuantizedTensor, quantized_matmul

Matrix = jax.Array | QuantizedTensor


def rms_norm(inputs: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """Inputs of unit mean square, times a scale.

    Args:
      inputs: (*b, d).
      scale: (d,).
      epsilon: added to the mean square.

    Returns:
      (*b, d) in the dtype of ``inputs``; the mean is float32 at least.

    Example:
      >>> [f"{x:.2f}" for x in rms_norm(jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0]), 1e-6)]
      ['0.85', '2.26']

    Source: Zhang and Sennrich 2019, root mean square layer normalisation.
    """
    wide = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
    power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(power + epsilon) * scale).astype(inputs.dtype)


def linear(
    inputs: jax.Array, weight: Matrix, bias: jax.Array | None = None, *, wide: bool = False
) -> jax.Array:
    """``inputs @ weight.T + bias``, the matrix as files hold it.

    Args:
      inputs: (*b, i).
      weight: (o, i), plain, of which the numbers are cast to the dtype of ``inputs``, or quantised.
      bias: (o,).
      wide: float32 at least; else the dtype of ``inputs``.

    Returns:
      (*b, o); products of 16-bit numbers are summed in float32.

    Example:
      >>> linear(jnp.ones((2, 3)), jnp.ones((5, 3))).shape
      (2, 5)
    """
    if isinstance(weight, QuantizedTensor):
        outputs = quantized_matmul(inputs, weight)
    else:
        flat = inputs.reshape(-1, inputs.shape[-1])
        outputs = jax.lax.dot_general(
            flat, weight.astype(flat.dtype), (((1,), (1,)), ((), ())), preferred_element_type=_wide(inputs)
        )
        outputs = outputs.reshape(*inputs.shape[:-1], weight.shape[0])
    outputs = outputs if bias is None else outputs + bias
    return outputs.astype(_wide(inputs) if wide else inputs.dtype)


def lookup(weight: Matrix, tokens: jax.Array) -> jax.Array:
    """Rows of the embedding, (*b, d) for ids (*b,); only they are dequantised.

    Example:
      >>> lookup(jnp.arange(6.0).reshape(3, 2), jnp.array([[2, 0]])).tolist()
      [[[4.0, 5.0], [0.0, 1.0]]]
    """
    if isinstance(weight, QuantizedTensor):
        return weight.rows(tokens.reshape(-1)).reshape(*tokens.shape, weight.shape[-1])
    return weight[tokens]


def _wide(array: jax.Array) -> jnp.dtype:
    return jnp.promote_types(array.dtype, jnp.float32)
