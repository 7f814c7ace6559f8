"""The feed-forward part of which each token computes the neurons that a predictor names."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparsejax.models.sparse_inference.calibration.compensation import Compensation
from sparsejax.models.sparse_inference.config import ModelConfig, SparsityConfig
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan
from sparsejax.models.sparse_inference.ffn.quantized import predicted_quantized_ffn, whole_quantized_ffn
from sparsejax.ops.quantized import QuantizedFFN, QuantizedTensor
from sparsejax.ops.sparse_ffn import (
    GATED_ACTIVATIONS,
    FFNWeights,
    check_activation,
    check_floating,
    dense_ffn,
    listed_ffn,
)


class SparseFFN(nn.Module):
    """``y = b_out + sum_j act(w_in[j] x + b_in[j]) w_out[j]`` over the active neurons j, or a gated one.

    Attributes:
      d_model: width of the inputs.
      d_ff: neurons.
      d_out: width of the outputs; None is ``d_model``.
      activation: a name in `ops.sparse_ffn.ACTIVATIONS`, or with gates in `GATED_ACTIVATIONS` too. The
        published GELU is "gelu_tanh"; PowerInfer's PAR is "reglu", its SYM "drelu", its SEQ no gate.
      gated: there is a ``w_gate``.
      use_bias: every matrix has a bias.
      sparsity: of calls with scores that give none.
      plan: how neurons are chosen and computed; quantised ones in tiles of 32 at least. Matrices may be
        parameters of the type `QuantizedTensor`, ``w_out`` then (o, f) as files hold it.
      compensation_rank: of a linear map of the inputs, fitted to what the choice by scores leaves out and
        added to its outputs; those of listed neurons (``indices``) are the published function without it.
        None has none.

    Example:
      >>> ffn = SparseFFN(d_model=8, d_ff=32, activation="swiglu", gated=True)
      >>> params = jax.jit(ffn.init)(jax.random.key(0), jnp.ones(8))
      >>> ffn.apply(params, jnp.ones(8), indices=jnp.array([1, 5])).shape
      (8,)

    Source: specs/sparse_inference.md section 3.
    """

    d_model: int
    d_ff: int
    d_out: int | None = None
    activation: str = "gelu_tanh"
    gated: bool = False
    use_bias: bool = True
    sparsity: SparsityConfig | None = None
    plan: FFNPlan = FFNPlan()
    compensation_rank: int | None = None

    @classmethod
    def of_config(cls, config: ModelConfig, **options: Any) -> SparseFFN:
        """With the sizes, the activation and the sparsity of a published config.

        Args:
          config: sizes; its rank is that of a predictor, such as ``LowRankPredictor.init`` takes.
          options: further attributes.

        Raises:
          ValueError: the config asks for quantised weights, which are parameters and no attribute.

        Example:
          >>> SparseFFN.of_config(ModelConfig(8, 32, 4, rank=2)).d_out
          4
        """
        if config.quantization not in (None, "f32"):
            raise ValueError(
                f"quantization={config.quantization!r}: the weights are parameters; leave it None here and "
                "give the FFN matrices of the type QuantizedTensor"
            )
        gated = config.activation in GATED_ACTIVATIONS
        own = {"activation": config.activation, "gated": gated, "sparsity": config.sparsity}
        return cls(config.input_dim, config.hidden_dim, config.output_dim, **{**own, **options})

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        *,
        scores: jax.Array | None = None,
        predictor: Any = None,
        indices: jax.Array | None = None,
        sparsity: SparsityConfig | None = None,
        strict: bool = False,
    ) -> jax.Array:
        """Outputs (*b, o) from inputs (*b, d): of all neurons, unless something says which.

        Args:
          inputs: (*b, d).
          scores: (*b, f) of the neurons, whose best are computed.
          predictor: anything with ``scores(inputs)``, instead of scores.
          indices: integers (k,) or (*b, k), the neurons themselves; one listed twice counts twice.
          sparsity: how many neurons scores choose; None is the attribute.
          strict: refuse empty choices and indices out of range; only outside of jit.

        Raises:
          ValueError: shapes that do not fit, inputs that are no floating point numbers, two ways to say which
            neurons, scores without a sparsity, an unknown activation, NaN scores (outside of jit); in strict
            mode an empty choice.
          IndexError: in strict mode, an index out of range.
        """
        check_activation(self.activation, gated=self.gated)
        check_floating(inputs)
        if inputs.ndim == 0 or inputs.shape[-1] != self.d_model:
            raise ValueError(f"inputs of shape {inputs.shape} do not fit: (..., {self.d_model}) is needed")
        if sum(given is not None for given in (scores, predictor, indices)) > 1:
            raise ValueError("give scores, a predictor or indices, only one of them")
        weights, fitted = self._weights(), self._compensation()
        if indices is not None:
            if isinstance(weights, QuantizedFFN):
                raise ValueError("quantised neurons are chosen in whole tiles; give scores, not indices")
            return listed_ffn(inputs, weights, indices, activation=self.activation, strict=strict)
        scores = scores if predictor is None else predictor.scores(inputs)
        if scores is None:
            if isinstance(weights, QuantizedFFN):
                return whole_quantized_ffn(inputs, weights, activation=self.activation)
            return dense_ffn(inputs, weights, activation=self.activation)
        sparsity = self.sparsity if sparsity is None else sparsity
        if sparsity is None:
            raise ValueError("scores choose nothing by themselves; give a sparsity, such as with_top_k(100)")
        if isinstance(weights, QuantizedFFN):
            return predicted_quantized_ffn(
                inputs,
                weights,
                scores,
                sparsity,
                activation=self.activation,
                plan=None if self.plan == FFNPlan() else self.plan,
                fitted=fitted,
                strict=strict,
            )
        return predicted_ffn(
            inputs,
            weights,
            scores,
            sparsity,
            activation=self.activation,
            plan=self.plan,
            fitted=fitted,
            strict=strict,
        )

    def _weights(self) -> FFNWeights | QuantizedFFN:
        outputs, zeros = self.d_model if self.d_out is None else self.d_out, nn.initializers.zeros
        narrow, wide = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2), nn.initializers.lecun_normal()
        parts = {
            "w_in": self._matrix("w_in", narrow, (self.d_ff, self.d_model)),
            "w_out": self._matrix("w_out", wide, (self.d_ff, outputs)),
        }
        if self.gated:
            parts["w_gate"] = self._matrix("w_gate", narrow, (self.d_ff, self.d_model))
        if self.use_bias:
            sizes = {"b_in": self.d_ff, "b_out": outputs} | ({"b_gate": self.d_ff} if self.gated else {})
            parts |= {name: self.param(name, zeros, (size,)) for name, size in sizes.items()}
        kept = [isinstance(part, QuantizedTensor) for name, part in parts.items() if name.startswith("w")]
        if any(kept) and not all(kept):
            raise ValueError("some matrices are quantised and some are not; quantise all of them or none")
        return QuantizedFFN(**parts) if all(kept) else FFNWeights(**parts)

    def _matrix(self, name: str, draw: Any, shape: tuple[int, int]) -> Any:
        """A parameter that may be quantised: the output matrix is then (o, f), as files hold it."""
        given = self.get_variable("params", name) if self.has_variable("params", name) else None
        if not isinstance(given, QuantizedTensor):
            return self.param(name, draw, shape)
        wanted = shape[::-1] if name == "w_out" else shape
        if tuple(given.shape) != wanted:
            raise ValueError(f"{name} is quantised of shape {tuple(given.shape)}; {wanted} is needed")
        return given

    def _compensation(self) -> Compensation | None:
        if self.compensation_rank is None:
            return None
        rank, outputs = self.compensation_rank, self.d_model if self.d_out is None else self.d_out

        def zeros(key: jax.Array) -> dict[str, jax.Array]:
            del key
            return {
                "u": jnp.zeros((outputs, rank)),
                "v": jnp.zeros((rank, self.d_model)),
                "c": jnp.zeros(outputs),
            }

        return Compensation.of(self.param("compensation", zeros))
