"""Predictors that look ahead: they score a layer's neurons from what an earlier layer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax

from sparsejax.models.sparse_inference.predictor.learned import Predictor


@flax.struct.dataclass
class LookAhead:
    """A predictor that reads the FFN inputs of the layer ``lag`` before its own.

    Residual streams change slowly, so those inputs say nearly as much, and they are known a layer earlier:
    prediction, and bringing neurons from far away, can overlap that layer's work.

    Attributes:
      predictor: calibrated on pairs of the earlier layer's inputs and this layer's neurons; see `calibrate`
        with ``lag``.
      lag: layers, at least 1.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.exact import Dense
      >>> LookAhead(Dense(3)).lag
      1

    Source: Deja Vu (Liu et al. 2023).
    """

    predictor: Any
    lag: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def shape(self) -> tuple[int, int]:
        """(f, d)."""
        return self.predictor.shape

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Scores (*b, f) from the earlier layer's inputs (*b, d)."""
        return self.predictor.scores(inputs)


def scores_of_layer(predictor: Predictor, inputs: Sequence[jax.Array], layer: int) -> jax.Array:
    """Scores of a layer's neurons, from the inputs of whichever layer its predictor reads.

    Args:
      predictor: of the layer.
      inputs: (*b, d) of the layers so far, at least up to the one that is read.
      layer: number of the layer, from 0.

    Returns:
      (*b, f).

    Raises:
      ValueError: the layer that would be read does not exist, or its inputs are not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor
      >>> ahead = LookAhead(LowRankPredictor(jnp.ones((1, 2)), jnp.ones((3, 1))))
      >>> scores_of_layer(ahead, [jnp.array([1.0, 2.0])], 1).tolist()
      [3.0, 3.0, 3.0]
    """
    lag = lag_of(predictor)
    if layer < lag:
        raise ValueError(f"the predictor of layer {layer} looks {lag} layers back, where there is none")
    if layer - lag >= len(inputs):
        raise ValueError(f"layer {layer} needs the inputs of layer {layer - lag}; there are {len(inputs)}")
    return predictor.scores(inputs[layer - lag])


def lag_of(predictor: Any) -> int:
    """Layers between the one that a predictor reads and the one that it scores; 0 of most.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.exact import Dense
      >>> lag_of(LookAhead(Dense(3), lag=2)), lag_of(Dense(3))
      (2, 0)
    """
    return int(getattr(predictor, "lag", 0))
