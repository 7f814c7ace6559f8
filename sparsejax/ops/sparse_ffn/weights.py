"""The weights of a feed-forward part, a neuron's numbers side by side, and its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class FFNWeights(NamedTuple):
    """Neuron-major weights: row n of every matrix belongs to neuron n.

    Attributes:
      w_in: (f, d).
      w_out: (f, o), where o is nearly always d.
      w_gate: (f, d) of gated FFNs, whose hidden value is ``activation(x w_gate) * (x w_in)``.
      b_in: (f,) added to ``x w_in``.
      b_gate: (f,) added to ``x w_gate``.
      b_out: (o,) added to the output.

    Example:
      >>> FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4))).w_gate is None
      True
    """

    w_in: Array
    w_out: Array
    w_gate: Array | None = None
    b_in: Array | None = None
    b_gate: Array | None = None
    b_out: Array | None = None


def gelu(x: Array) -> Array:
    """The exact form ``x / 2 * (1 + erf(x / sqrt(2)))``, as torch computes it.

    `jax.nn.gelu` takes the complement of erf, of which XLA computes two forms for every number. On CPU an
    FFN of 2,048 neurons and width 512 takes 3.5 ms with that and 2.4 with this for 64 tokens, 44 and 38 for
    1,024. What is lost is the relative error of results far left of 0; the absolute one is below 8e-7 in
    float32, where torch has 9e-7 and `jax.nn.gelu` 4e-7.

    Args:
      x: floating point, of any shape.

    Returns:
      of that shape.

    Example:
      >>> [round(float(value), 4) for value in gelu(jnp.asarray([-1.0, 0.0, 2.0]))]
      [-0.1587, 0.0, 1.9545]

    Source: Hendrycks and Gimpel 2016.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}
"""By name; every one of them is 0 at 0, so that a masked neuron gives nothing."""

GATED_ACTIVATIONS: Mapping[str, tuple[str, str]] = {
    "swiglu": ("silu", "identity"),
    "geglu": ("gelu_tanh", "identity"),
    "reglu": ("relu", "identity"),
    "drelu": ("relu", "relu"),
}
"""By name, what a gated FFN does to the sums of the gate and to those of the inputs, as `ACTIVATIONS`. A name
of theirs alone acts on the gate."""


def activated(activation: str, sums: Array, gate: Array | None = None) -> Array:
    """Hidden values from the sums of both products.

    Args:
      activation: a name in `ACTIVATIONS`, or with a gate in `GATED_ACTIVATIONS` too.
      sums: ``x w_in``, of any shape.
      gate: ``x w_gate`` of the same shape; None for an FFN without gates.

    Example:
      >>> activated("drelu", jnp.asarray([-1.0, 2.0]), jnp.asarray([3.0, 3.0])).tolist()
      [0.0, 6.0]
    """
    if gate is None:
        return ACTIVATIONS[activation](sums)
    of_gate, of_sums = GATED_ACTIVATIONS.get(activation, (activation, "identity"))
    return ACTIVATIONS[of_gate](gate) * ACTIVATIONS[of_sums](sums)


def check_activation(activation: str, *, gated: bool) -> None:
    """Refuse an activation that an FFN with or without gates does not have.

    Raises:
      ValueError: names those that do.

    Example:
      >>> check_activation("relu", gated=True)
    """
    known = (*ACTIVATIONS, *(GATED_ACTIVATIONS if gated else ()))
    if activation not in known:
        why = "; it needs weights of a gate" if activation in GATED_ACTIVATIONS else ""
        raise ValueError(f"no activation {activation!r}{why}; choose one of {known}")


def check_floating(inputs: Array) -> None:
    """Refuse inputs whose dtype the outputs, which have the same, would be rounded to.

    Raises:
      ValueError: the inputs are no floating point numbers.

    Example:
      >>> check_floating(jnp.ones(2, jnp.int32))
      Traceback (most recent call last):
      ValueError: inputs must be floating point, not int32
    """
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(f"inputs must be floating point, not {inputs.dtype}")


def map_neurons(function: Callable[[Array], Array], weights: FFNWeights) -> FFNWeights:
    """``function`` of every array that has a row per neuron; the output's bias is left out.

    Example:
      >>> map_neurons(lambda rows: rows[:2], FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4)))).w_in.shape
      (2, 4)
    """
    mapped: FFNWeights = jax.tree.map(function, weights._replace(b_out=None))
    return mapped
