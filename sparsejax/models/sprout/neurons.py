"""Single neurons: views into the weights, what one neuron gives, and which to look at."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.models.sprout.analysis.layers import router_kernel
from sparsejax.models.sprout.analysis.usage import NeuronUsage
from sparsejax.ops.sparse_ffn import ACTIVATIONS
from sparsejax.typing import Params


class Neuron(NamedTuple):
    """One of the d_ff neurons of an FFN; the FFN's output is the sum of what its used neurons contribute.

    Attributes:
      w_in: (d,) what it looks for.
      w_out: (d,) what it adds; None in a DeepSets FFN, which has no output matrix.
      router: (h,) what its score, or its block's, is read with: from the FFN's input, (d,), or from the
        hidden layer of a router that has one.
      b_in: () its bias, in FFNs that have them.
      function: name of the activation.
    """

    w_in: jax.Array
    w_out: jax.Array | None
    router: jax.Array
    b_in: jax.Array | None = None
    function: str = "gelu"

    def preactivation(self, inputs: jax.Array) -> jax.Array:
        """Product (*b) of ``w_in`` with inputs (*b, d), as a published neuron gives it when called."""
        product = inputs @ self.w_in
        return product if self.b_in is None else product + self.b_in

    def activation(self, inputs: jax.Array) -> jax.Array:
        """Activation (*b) for inputs (*b, d)."""
        return ACTIVATIONS[self.function](self.preactivation(inputs))

    def contribution(self, inputs: jax.Array) -> jax.Array:
        """What the neuron adds to the output: (*b, d) from (*b, d).

        Raises:
          ValueError: the FFN has no output matrix.
        """
        if self.w_out is None:
            raise ValueError("a neuron of a DeepSets FFN has no output weights")
        return self.activation(inputs)[..., None] * self.w_out


class OutputNeuron(NamedTuple):
    """One of the d outputs of an FFN.

    Attributes:
      weights: (f,) of all neurons.
    """

    weights: jax.Array

    def __call__(self, values: jax.Array) -> jax.Array:
        """Output (*b) from activations (*b, f)."""
        return values @ self.weights


def neuron(params: Params, layer: int | None, index: int, *, activation: str = "gelu") -> Neuron:
    """A neuron by its number.

    Args:
      params: of `SproutLM`, or of `SproutFFN` with ``layer=None``.
      layer: its number, from 0.
      index: of the neuron, from 0.
      activation: of the network's config.

    Raises:
      ValueError: there is no such layer or neuron.

    Example:
      >>> ffn = {"w_in": jnp.eye(3, 2), "w_out": 2 * jnp.eye(3, 2), "router": {"kernel": jnp.ones((2, 3))}}
      >>> first = neuron(ffn, None, 0)
      >>> first.w_in.tolist(), first.contribution(jnp.asarray([8.0, 5.0])).tolist()
      ([1.0, 0.0], [16.0, 0.0])
    """
    ffn = _ffn(params, layer)
    count = ffn["w_in"].shape[0]
    _check("neuron", index, count)
    kernel = router_kernel(ffn)
    column = index // (count // kernel.shape[1])  # its block's, if the router scores blocks
    w_out = ffn["w_out"][index] if "w_out" in ffn else None
    b_in = ffn["b_in"][index] if "b_in" in ffn else None
    return Neuron(ffn["w_in"][index], w_out, kernel[:, column], b_in, activation)


def output_neuron(params: Params, layer: int | None, index: int) -> OutputNeuron:
    """A component of the output by its number: a row of the published ``W2``.

    Args:
      params: of `SproutLM`, or of `SproutFFN` with ``layer=None``.
      layer: its number.
      index: of the component, from 0 to d_model - 1.

    Raises:
      ValueError: there is no such layer or component, or no output matrix.

    Example:
      >>> ffn = {"w_in": jnp.eye(3, 2), "w_out": jnp.arange(6.0).reshape(3, 2)}
      >>> output_neuron(ffn, None, 1).weights.tolist()
      [1.0, 3.0, 5.0]
    """
    ffn = _ffn(params, layer)
    if "w_out" not in ffn:
        raise ValueError("a DeepSets FFN has no output matrix")
    _check("output neuron", index, ffn["w_out"].shape[1])
    return OutputNeuron(ffn["w_out"][:, index])


def most_used(usage: NeuronUsage, layer: int = 0, count: int = 10) -> np.ndarray:
    """Numbers (count,) of the neurons that most tokens use, the most used first; ties by number.

    Args:
      usage: of `neuron_usage`.
      layer: its number.
      count: how many.

    Example:
      >>> usage = NeuronUsage(np.asarray([[3, 0, 9]]), np.ones((1, 3)), 9, 1)
      >>> most_used(usage, count=2).tolist(), least_used(usage, count=1).tolist()
      ([2, 0], [1])
    """
    return np.argsort(-usage.counts[layer], kind="stable")[:count]


def least_used(usage: NeuronUsage, layer: int = 0, count: int = 10) -> np.ndarray:
    """Numbers (count,) of the neurons that fewest tokens use, the least used first; see `most_used`."""
    return np.argsort(usage.counts[layer], kind="stable")[:count]


def _ffn(params: Params, layer: int | None) -> Any:
    if layer is None:
        if "w_in" not in params:
            raise ValueError("these are no parameters of an FFN; give the number of a layer")
        return params
    if f"layer_{layer}" not in params:
        raise ValueError(f"there is no layer {layer}")
    return params[f"layer_{layer}"]["ffn"]


def _check(what: str, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise ValueError(f"{what} {index} is not one of 0 to {count - 1}")
