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


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
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


def map_neurons(function: Callable[[Array], Array], weights: FFNWeights) -> FFNWeights:
    """``function`` of every array that has a row per neuron; the output's bias is left out.

    Example:
      >>> map_neurons(lambda rows: rows[:2], FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4)))).w_in.shape
      (2, 4)
    """
    mapped: FFNWeights = jax.tree.map(function, weights._replace(b_out=None))
    return mapped
