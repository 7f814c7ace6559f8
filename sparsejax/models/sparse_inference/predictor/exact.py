"""Predictors that read the FFN itself: its gates, all of it, or nothing."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.calibration.strength import Strength, strengths
from sparsejax.models.sparse_inference.predictor.learned import check_inputs, product
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.sparse_ffn import ACTIVATIONS, GATED_ACTIVATIONS, FFNWeights


@flax.struct.dataclass
class GateThreshold:
    """The size of each gate: neurons with a small one are left out of the other two matrices.

    All gates are computed, which is a third of a gated FFN; nothing is learned but the threshold, which
    `calibrate` makes a quantile of the gates. Of an FFN without gates, ``w_in`` serves as one.

    Attributes:
      w_gate: (f, d) of the FFN, plain or quantised.
      b_gate: (f,), or None.
      activation: of the gates, or of the FFN (a name in `ACTIVATIONS` or `GATED_ACTIVATIONS`).

    Example:
      >>> GateThreshold(jnp.array([[1.0], [-2.0]]), activation="relu").scores(jnp.array([-1.5])).tolist()
      [0.0, 3.0]

    Source: CATS (Lee et al. 2024).
    """

    w_gate: jax.Array | QuantizedTensor
    b_gate: jax.Array | None = None
    activation: str = flax.struct.field(pytree_node=False, default="silu")

    @classmethod
    def of_weights(cls, weights: FFNWeights, *, activation: str) -> GateThreshold:
        """Of the gates of an FFN, or of its inputs where it has none.

        Args:
          weights: of f neurons.
          activation: of the FFN.

        Example:
          >>> weights = FFNWeights(jnp.ones((4, 2)), jnp.ones((4, 2)))
          >>> GateThreshold.of_weights(weights, activation="relu").shape
          (4, 2)
        """
        if weights.w_gate is None:
            return cls(weights.w_in, weights.b_in, activation=activation)
        return cls(weights.w_gate, weights.b_gate, activation=activation)

    @property
    def shape(self) -> tuple[int, int]:
        """(f, d)."""
        neurons, width = self.w_gate.shape
        return neurons, width

    def scores(self, inputs: jax.Array) -> jax.Array:
        """``|act(gate)|`` (*b, f), from inputs (*b, d).

        Raises:
          ValueError: inputs of another width.
        """
        check_inputs(inputs, self.w_gate.shape[1])
        gates = product(inputs, self.w_gate)
        gates = gates if self.b_gate is None else gates + self.b_gate
        of_gate, _ = GATED_ACTIVATIONS.get(self.activation, (self.activation, "identity"))
        return jnp.abs(ACTIVATIONS[of_gate](gates))


@flax.struct.dataclass
class Oracle:
    """The true strengths: computes the whole FFN, and says what the best predictor could reach.

    Attributes:
      weights: of the FFN.
      activation: of the FFN.
      by: what the best neurons are best at, see `Strength`.

    Example:
      >>> weights = FFNWeights(jnp.array([[1.0], [-2.0]]), jnp.ones((2, 1)))
      >>> Oracle(weights, activation="identity").scores(jnp.array([1.0])).tolist()
      [1.0, 2.0]
    """

    weights: FFNWeights
    activation: str = flax.struct.field(pytree_node=False, default="gelu_tanh")
    by: Strength = flax.struct.field(pytree_node=False, default="contribution")

    @property
    def shape(self) -> tuple[int, int]:
        """(f, d)."""
        neurons, width = self.weights.w_in.shape
        return neurons, width

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Strengths (*b, f) from inputs (*b, d).

        Raises:
          ValueError: inputs of another width, or an unknown name.
        """
        return strengths(inputs, self.weights, activation=self.activation, by=self.by)


@flax.struct.dataclass
class Dense:
    """Selects every neuron, whatever the threshold is.

    Attributes:
      neurons: f.

    Example:
      >>> Dense(3).scores(jnp.ones((2, 8))).tolist()
      [[inf, inf, inf], [inf, inf, inf]]
    """

    neurons: int = flax.struct.field(pytree_node=False)

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Infinity (*b, f), for inputs (*b, d)."""
        return jnp.full((*inputs.shape[:-1], self.neurons), jnp.inf, jnp.float32)
