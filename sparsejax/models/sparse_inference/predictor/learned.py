"""Predictors with weights of their own: from an FFN's inputs, a score for each of its neurons."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import check_rank
from sparsejax.ops.quantized import QuantizedTensor, quantized_matmul


@runtime_checkable
class Predictor(Protocol):
    """Anything that scores neurons; a pytree, so that it goes through jit as an argument.

    Example:
      >>> isinstance(LowRankPredictor(jnp.ones((2, 4)), jnp.ones((8, 2))), Predictor)
      True
    """

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Scores (*b, f) of the neurons from inputs (*b, d); the larger, the sooner a neuron is computed."""


def low_rank_scores(
    inputs: jax.Array,
    p: jax.Array | QuantizedTensor,
    q: jax.Array | QuantizedTensor,
    bias: jax.Array | None = None,
) -> jax.Array:
    """``Q (P x) + bias``.

    Args:
      inputs: (*b, d).
      p: (r, d).
      q: (f, r).
      bias: (f,), or None as published.

    Returns:
      (*b, f), float32 at least.

    Example:
      >>> low_rank_scores(jnp.array([1.0, 2.0]), jnp.array([[1.0, 1.0]]), jnp.array([[1.0], [-1.0]])).tolist()
      [3.0, -3.0]

    Source: specs/sparse_inference.md section 2.
    """
    scores = product(_narrowed(product(inputs, p), q), q)
    return scores if bias is None else scores + bias


def mlp_scores(
    inputs: jax.Array,
    fc1: jax.Array | QuantizedTensor,
    fc2: jax.Array | QuantizedTensor,
    *,
    bias1: jax.Array | None = None,
    bias2: jax.Array | None = None,
) -> jax.Array:
    """``fc2 relu(fc1 x + bias1) + bias2``.

    Args:
      inputs: (*b, d).
      fc1: (r, d).
      fc2: (f, r).
      bias1: (r,), or None as published.
      bias2: (f,), or None as published.

    Returns:
      (*b, f), float32 at least.

    Example:
      >>> mlp_scores(jnp.array([1.0]), jnp.array([[2.0], [-2.0]]), jnp.array([[1.0, 5.0]])).tolist()
      [2.0]

    Source: PowerInfer (Song et al. 2023), specs/sparse_inference.md section 11.
    """
    hidden = product(inputs, fc1)
    hidden = jax.nn.relu(hidden if bias1 is None else hidden + bias1)
    scores = product(_narrowed(hidden, fc2), fc2)
    return scores if bias2 is None else scores + bias2


@flax.struct.dataclass
class LowRankPredictor:
    """Linear scores through a narrow middle.

    Attributes:
      p: (r, d); both matrices may be quantised, see `quantize_predictor`.
      q: (f, r).
      bias: (f,) added to the scores; the original has none.

    Example:
      >>> predictor = LowRankPredictor.init(jax.random.key(0), 8, 32, rank=4)
      >>> predictor.scores(jnp.ones((3, 8))).shape
      (3, 32)

    Source: specs/sparse_inference.md section 2.
    """

    p: jax.Array | QuantizedTensor
    q: jax.Array | QuantizedTensor
    bias: jax.Array | None = None

    @classmethod
    def init(cls, key: jax.Array, inputs: int, neurons: int, *, rank: int) -> LowRankPredictor:
        """Small uniform draws, as published: knows nothing until it is calibrated.

        Args:
          key: of the draws.
          inputs: d.
          neurons: f.
          rank: 1 to the smaller of both.

        Raises:
          ValueError: the rank is out of range.
        """
        check_rank(rank, inputs, neurons)
        of_p, of_q = jax.random.split(key)
        draw = jax.random.uniform
        return cls(
            draw(of_p, (rank, inputs), minval=-0.01, maxval=0.01),
            draw(of_q, (neurons, rank), minval=-0.01, maxval=0.01),
        )

    @classmethod
    def from_matrices(cls, p: Any, q: Any, bias: Any = None) -> LowRankPredictor:
        """From arrays that may come from anywhere.

        Args:
          p: (r, d).
          q: (f, r).
          bias: (f,).

        Raises:
          ValueError: shapes that do not fit each other, a rank above min(d, f), or NaN.

        Example:
          >>> LowRankPredictor.from_matrices(np.ones((2, 4)), np.ones((8, 3)))
          Traceback (most recent call last):
          ValueError: p (2, 4) and q (8, 3) must be (rank, inputs) and (neurons, rank)
        """
        _check_matrices({"p": p, "q": q}, {"bias": bias})
        return cls(jnp.asarray(p), jnp.asarray(q), None if bias is None else jnp.asarray(bias))

    @property
    def shape(self) -> tuple[int, int]:
        """(f, d)."""
        return self.q.shape[0], self.p.shape[1]

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Scores (*b, f) from inputs (*b, d).

        Raises:
          ValueError: inputs of another width.
        """
        check_inputs(inputs, self.p.shape[1])
        return low_rank_scores(inputs, self.p, self.q, self.bias)


@flax.struct.dataclass
class MLPPredictor:
    """Scores of a network with one hidden layer: logits, 0 where a neuron is as likely active as not.

    PowerInfer computes a neuron whose logit is at least its threshold, `SparsityConfig` one whose score is
    above; they differ where a logit equals it to the last bit.

    Attributes:
      fc1: (r, d); both matrices may be quantised, see `quantize_predictor`.
      fc2: (f, r).
      bias1: (r,) of the hidden layer; PowerInfer has none.
      bias2: (f,) added to the scores; PowerInfer has none.

    Example:
      >>> MLPPredictor.init(jax.random.key(0), 8, 32, rank=4).scores(jnp.ones((3, 8))).shape
      (3, 32)

    Source: PowerInfer (Song et al. 2023), specs/sparse_inference.md section 11.
    """

    fc1: jax.Array | QuantizedTensor
    fc2: jax.Array | QuantizedTensor
    bias1: jax.Array | None = None
    bias2: jax.Array | None = None

    @classmethod
    def init(
        cls, key: jax.Array, inputs: int, neurons: int, *, rank: int, use_bias: bool = True
    ) -> MLPPredictor:
        """Normal draws that keep the scale of the inputs; scores start small.

        Args:
          key: of the draws.
          inputs: d.
          neurons: f.
          rank: hidden width, at least 1; more than the inputs is of use here.
          use_bias: both layers have biases, which start at 0.

        Raises:
          ValueError: the rank is below 1.
        """
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank, the hidden width, must be a whole number of at least 1, not {rank!r}")
        of_fc1, of_fc2 = jax.random.split(key)
        fc1 = jax.random.normal(of_fc1, (rank, inputs)) * (2 / inputs) ** 0.5
        fc2 = jax.random.normal(of_fc2, (neurons, rank)) * 0.1 * rank**-0.5
        return cls(fc1, fc2, *(jnp.zeros(rank), jnp.zeros(neurons)) if use_bias else (None, None))

    @classmethod
    def from_matrices(cls, fc1: Any, fc2: Any, bias1: Any = None, bias2: Any = None) -> MLPPredictor:
        """From arrays that may come from anywhere.

        Args:
          fc1: (r, d).
          fc2: (f, r).
          bias1: (r,).
          bias2: (f,).

        Raises:
          ValueError: shapes that do not fit each other, or NaN.
        """
        _check_matrices({"fc1": fc1, "fc2": fc2}, {"bias2": bias2}, {"bias1": bias1})
        biases = (None if bias is None else jnp.asarray(bias) for bias in (bias1, bias2))
        return cls(jnp.asarray(fc1), jnp.asarray(fc2), *biases)

    @property
    def shape(self) -> tuple[int, int]:
        """(f, d)."""
        return self.fc2.shape[0], self.fc1.shape[1]

    def scores(self, inputs: jax.Array) -> jax.Array:
        """Scores (*b, f) from inputs (*b, d).

        Raises:
          ValueError: inputs of another width.
        """
        check_inputs(inputs, self.fc1.shape[1])
        return mlp_scores(inputs, self.fc1, self.fc2, bias1=self.bias1, bias2=self.bias2)


def check_inputs(inputs: jax.Array, width: int) -> None:
    """Refuse inputs that are not of a width.

    Raises:
      ValueError: says which width is needed.

    Example:
      >>> check_inputs(jnp.ones((2, 4)), 4)
    """
    if inputs.ndim == 0 or inputs.shape[-1] != width:
        raise ValueError(f"inputs of shape {inputs.shape} do not fit the predictor: (..., {width}) is needed")


def product(inputs: jax.Array, matrix: jax.Array | QuantizedTensor) -> jax.Array:
    """``inputs @ matrix.T`` (*b, o) of inputs (*b, i) and a matrix (o, i), summed in float32 at least.

    Example:
      >>> product(jnp.ones((2, 3)), jnp.ones((5, 3))).shape
      (2, 5)
    """
    inputs = jnp.asarray(inputs)
    if isinstance(matrix, QuantizedTensor):
        return quantized_matmul(inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32)), matrix)
    matrix = jnp.asarray(matrix)
    wide = jnp.promote_types(jnp.promote_types(inputs.dtype, matrix.dtype), jnp.float32)
    both = jnp.promote_types(inputs.dtype, matrix.dtype)
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(both)
    numbers = (((1,), (1,)), ((), ()))
    outputs = jax.lax.dot_general(flat, matrix.astype(both), numbers, preferred_element_type=wide)
    return outputs.reshape(*inputs.shape[:-1], matrix.shape[0])


def _narrowed(hidden: jax.Array, matrix: jax.Array | QuantizedTensor) -> jax.Array:
    """In the dtype that a matrix is multiplied in."""
    return hidden if isinstance(matrix, QuantizedTensor) else hidden.astype(jnp.asarray(matrix).dtype)


def _check_matrices(
    matrices: dict[str, Any], of_neurons: dict[str, Any], of_ranks: dict[str, Any] | None = None
):
    (first, second), of_ranks = matrices, of_ranks or {}
    low, high = (np.shape(array) for array in matrices.values())
    if len(low) != 2 or len(high) != 2 or low[0] != high[1] or 0 in low + high:
        raise ValueError(f"{first} {low} and {second} {high} must be (rank, inputs) and (neurons, rank)")
    if first == "p":
        check_rank(low[0], low[1], high[0])
    for given, size in ((of_neurons, high[0]), (of_ranks, low[0])):
        for name, bias in given.items():
            if bias is not None and np.shape(bias) != (size,):
                raise ValueError(f"{name} must have shape ({size},), not {np.shape(bias)}")
    for name, array in (matrices | of_neurons | of_ranks).items():
        if array is not None and not np.isfinite(np.asarray(array, np.float32)).all():
            raise ValueError(f"{name} holds NaN or infinity")
