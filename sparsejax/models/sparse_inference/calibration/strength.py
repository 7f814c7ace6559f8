"""How much each neuron of an FFN does for an input: what predictors are to guess."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from sparsejax.ops.sparse_ffn import FFNWeights, check_activation
from sparsejax.ops.sparse_ffn.reference import hidden_values

Strength = Literal["activation", "contribution"]
"""By a neuron's value alone, ``|h|``, or by what it adds to the output, ``|h|`` times the norm of its row of
``w_out``."""


def strengths(
    inputs: jax.Array, weights: FFNWeights, *, activation: str, by: Strength = "activation"
) -> jax.Array:
    """How much each neuron does for each input.

    Args:
      inputs: (*b, d).
      weights: of f neurons.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS` or, of gated FFNs, `GATED_ACTIVATIONS`.
      by: see `Strength`.

    Returns:
      (*b, f), at least 0, in float32 at least.

    Raises:
      ValueError: inputs of another width, or an unknown name.

    Example:
      >>> weights = FFNWeights(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
      >>> strengths(jnp.array([-1.0]), weights, activation="identity", by="contribution").tolist()
      [5.0, 2.0]
    """
    check_strength(by)
    check_activation(activation, gated=weights.w_gate is not None)
    neurons, width = weights.w_in.shape
    if inputs.ndim == 0 or inputs.shape[-1] != width:
        raise ValueError(f"inputs of shape {inputs.shape} do not fit the FFN: (..., {width}) is needed")
    values = jnp.abs(hidden_values(inputs.reshape(-1, width), weights, None, activation))
    values = values if by == "activation" else values * output_norms(weights)
    return values.reshape(*inputs.shape[:-1], neurons)


def output_norms(weights: FFNWeights) -> jax.Array:
    """The norm (f,) of each neuron's row of ``w_out``, in float32 at least.

    Example:
      >>> output_norms(FFNWeights(jnp.ones((2, 3)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))).tolist()
      [5.0, 1.0]
    """
    rows = weights.w_out.astype(jnp.promote_types(weights.w_out.dtype, jnp.float32))
    return jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))


def check_strength(by: str) -> None:
    """Refuse a name that is not a `Strength`.

    Raises:
      ValueError: names those that are.

    Example:
      >>> check_strength("activation")
    """
    if by not in get_args(Strength):
        raise ValueError(f"no strength {by!r}; choose one of {get_args(Strength)}")


jitted_strengths = partial(jax.jit, static_argnames=("activation", "by"))(strengths)
"""`strengths`, compiled once per shape."""
