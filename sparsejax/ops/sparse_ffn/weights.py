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
      w_out: (f, d).
      w_gate: (f, d) of gated FFNs, whose hidden value is ``activation(x w_gate) * (x w_in)``.
      b_in: (f,) added to ``x w_in``.
      b_gate: (f,) added to ``x w_gate``.
      b_out: (d,) added to the output.

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


def map_neurons(function: Callable[[Array], Array], weights: FFNWeights) -> FFNWeights:
    """``function`` of every array that has a row per neuron; the output's bias is left out.

    Example:
      >>> map_neurons(lambda rows: rows[:2], FFNWeights(jnp.ones((8, 4)), jnp.ones((8, 4)))).w_in.shape
      (2, 4)
    """
    return jax.tree.map(function, weights._replace(b_out=None))
