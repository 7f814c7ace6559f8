"""Published predictors and quantised matrices as modules, so that checkpoints can hold them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.part_configs import ScorerConfig, WeightsConfig
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor, MLPPredictor
from sparsejax.ops.quantized import AffineTensor, quantized_matmul


class Scorer(nn.Module):
    """Scores (*b, f) of the neurons from inputs (*b, d).

    Attributes:
      config: sizes and kind.

    Example:
      >>> scorer = Scorer(ScorerConfig(d_model=4, d_ff=10, rank=2))
      >>> params = jax.jit(scorer.init)(jax.random.key(0), jnp.ones(4))
      >>> scorer.apply(params, jnp.ones((3, 4))).shape
      (3, 10)

    Source: specs/sparse_inference.md sections 2 and 11.
    """

    config: ScorerConfig

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The scores."""
        config = self.config
        draw = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        names = ("p", "q") if config.hidden_activation is None else ("fc1", "fc2")
        parts = {
            names[0]: self.param(names[0], draw, (config.rank, config.d_model)),
            names[1]: self.param(names[1], draw, (config.d_ff, config.rank)),
        }
        if config.bias:
            sizes = {"bias": config.d_ff} if names[0] == "p" else {"bias1": config.rank, "bias2": config.d_ff}
            parts |= {name: self.param(name, nn.initializers.zeros, (size,)) for name, size in sizes.items()}
        return predictor_of(config, parts).scores(inputs)


class AffineMatrix(nn.Module):
    """Products (*b, o) of inputs (*b, i) with a matrix (o, i) of affine codes.

    Attributes:
      config: its shape and codes.

    Example:
      >>> matrix = AffineMatrix(WeightsConfig((4, 16), 4, 32))
      >>> params = jax.jit(matrix.init)(jax.random.key(0), jnp.ones(16))
      >>> matrix.apply(params, jnp.ones((2, 16))).shape
      (2, 4)

    Source: specs/sparse_inference.md section 5.
    """

    config: WeightsConfig

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The products."""
        config, zeros = self.config, nn.initializers.zeros
        data = self.param("data", zeros, (config.count,), jnp.uint8)
        scales = self.param("scales", nn.initializers.ones, (config.groups,))
        zero_points = self.param("zero_points", zeros, (config.groups,))
        weights = AffineTensor(data, scales, zero_points, config.shape, config.bits, config.group_size)
        return quantized_matmul(inputs, weights)


def predictor_of(config: ScorerConfig, params: Any) -> LowRankPredictor | MLPPredictor:
    """The predictor of a checkpoint, for `SparseFFN` and `calibrate`.

    Args:
      config: ``ck.config``.
      params: ``ck.params``.

    Example:
      >>> config = ScorerConfig(d_model=4, d_ff=10, rank=2, hidden_activation="relu")
      >>> predictor_of(config, {"fc1": jnp.ones((2, 4)), "fc2": jnp.ones((10, 2))}).scores(jnp.ones(4)).shape
      (10,)
    """
    if config.hidden_activation is not None:
        return MLPPredictor(params["fc1"], params["fc2"], params.get("bias1"), params.get("bias2"))
    return LowRankPredictor(params["p"], params["q"], params.get("bias"))
