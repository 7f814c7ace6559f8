"""The feed-forward layers that are measured: weights that rotate, inputs near a subspace, predictors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from sparsejax.bench.peers.dense_ffn import Dense

_SAMPLES = 1024  # inputs that predictors and compensations are made from
_NOISE = 0.1  # of an input, outside of the subspace
_INPUTS = 7  # shares no factor with the numbers of layers


@dataclass(frozen=True)
class Sizes:
    """Of all layers.

    Attributes:
      d_model: width.
      d_ff: neurons.
      layers: whose weights rotate.
      rank: of the predictors.
      quantises: predictors of one token are in Q8_0: reading them takes less than taking them apart.
      latent: dimensions of the subspace.
      gated: ReGLU instead of ReLU.
      block: neurons that tokens choose together in prefill.
      spread: of the biases, without which all neurons are active equally often; those active most come first,
        as `coactivation_order` puts them.
    """

    d_model: int = 4096
    d_ff: int = 11008
    layers: int = 3
    rank: int = 256
    quantises: bool = True
    latent: int = 128
    gated: bool = False
    block: int = 32
    spread: float = 0.0

    @property
    def words(self) -> str:
        """Of a case."""
        kind = "gated (ReGLU)" if self.gated else "two matrices (ReLU)"
        predictor = f"predictor of rank {self.rank}" + " in Q8_0" * self.quantises
        return f"{self.d_model:,} x {self.d_ff:,}, {kind}, {predictor}"


LARGE, GATED = Sizes(), Sizes(layers=2, gated=True)
SMALL = Sizes(512, 2048, layers=128, rank=32, quantises=False, latent=24)
PREFILL = Sizes(rank=64, quantises=False, latent=48, spread=1.5)
QUICK = Sizes(64, 256, layers=2, rank=32, latent=8)
"""All but the last hold 1 GiB of weights or more."""


class Layers:
    """Weights, inputs and predictors of one active part.

    Attributes:
      sizes: of all layers.
      active: part of the neurons that are active, and computed.
      activation: of the neurons.
      weights: of each layer.
      inputs: that rotate, (tokens, d).
      samples: (n, d) other inputs.
      predictors: of each layer, float32.
    """

    def __init__(self, sizes: Sizes, active: float, *, tokens: int = 1):
        """Draw everything."""
        import jax
        import jax.numpy as jnp

        self.sizes, self.active = sizes, active
        self.activation = "reglu" if sizes.gated else "relu"
        draws = np.random.default_rng(0)
        basis = np.linalg.qr(draws.normal(size=(sizes.d_model, sizes.latent)))[0].astype(np.float32)

        def drawn(number: int) -> Any:
            inside = draws.normal(size=(number, sizes.latent)).astype(np.float32) @ basis.T
            inside *= (sizes.d_model / sizes.latent) ** 0.5
            outside = draws.normal(size=(number, sizes.d_model)).astype(np.float32)
            return jnp.asarray((inside + _NOISE * outside) / np.float32(1 + _NOISE**2) ** 0.5)

        self.inputs = [drawn(tokens) for _ in range(_INPUTS if tokens == 1 else 3)]
        self.samples = drawn(min(_SAMPLES, 4 * sizes.d_model))
        middle = NormalDist().inv_cdf(active) * (1 + sizes.spread**2) ** 0.5
        bias = -np.sort(-(middle + sizes.spread * draws.normal(size=sizes.d_ff))).astype(np.float32)
        draw = jax.jit(self._draw)
        self.weights = [draw(jax.random.key(number), jnp.asarray(bias)) for number in range(sizes.layers)]
        directions = np.linalg.svd(np.asarray(self.samples), full_matrices=False)[2][: sizes.rank]
        self.predictors = [self._predictor(jnp.asarray(directions), one) for one in self.weights]

    @property
    def top_k(self) -> int:
        """Neurons that are computed."""
        return max(1, round(self.active * self.sizes.d_ff))

    @property
    def bytes_dense(self) -> int:
        """Of the weights of one layer."""
        return 4 * self.sizes.d_ff * self.sizes.d_model * (3 if self.sizes.gated else 2)

    def bytes_read(self, *, predicts: bool) -> int:
        """Of the rows of the computed neurons, and of the predictor."""
        import jax

        rows = self.bytes_dense * self.top_k // self.sizes.d_ff
        parts = jax.tree.leaves((self.scorers[0].p, self.scorers[0].q))
        return rows + predicts * sum(part.nbytes for part in parts)

    @cached_property
    def scorers(self) -> list[Any]:
        """The predictors as one token reads them."""
        from sparsejax.models.sparse_inference.predictor.quantized import quantize_predictor

        if not self.sizes.quantises:
            return self.predictors
        return [quantize_predictor(one) for one in self.predictors]

    @cached_property
    def predicted(self) -> Any:
        """Compiled: weights, inputs and a predictor to outputs."""
        import jax

        from sparsejax.models.sparse_inference.config import SparsityConfig
        from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn

        sparsity = SparsityConfig.with_top_k(self.top_k)

        def step(weights: Any, inputs: Any, predictor: Any) -> Any:
            scores = predictor.scores(inputs)
            return predicted_ffn(inputs, weights, scores, sparsity, activation=self.activation)

        return jax.jit(step)

    def plain(self) -> list[Dense]:
        """The weights for the peers."""
        return [
            Dense(one.w_in, one.w_out, one.w_gate, one.b_gate if self.sizes.gated else one.b_in)
            for one in self.weights
        ]

    def dense(self, layer: int, number: int) -> Any:
        """Outputs (tokens, d) of all neurons."""
        from sparsejax.ops.sparse_ffn import dense_ffn

        return dense_ffn(self.inputs[number], self.weights[layer], activation=self.activation)

    def outputs(self, layer: int, number: int, *, predicts: bool) -> Any:
        """Outputs (1, d) of the computed neurons."""
        from sparsejax.ops.sparse_ffn import listed_ffn

        weights, inputs = self.weights[layer], self.inputs[number]
        if predicts:
            return self.predicted(weights, inputs, self.scorers[layer])
        return listed_ffn(inputs, weights, self.best(layer, number), activation=self.activation)

    def hidden(self, layer: int, number: int) -> np.ndarray:
        """Values (tokens, f) of all neurons, in float64."""
        one, inputs = self.weights[layer], np.asarray(self.inputs[number], np.float64)

        def sums(rows: Any, bias: Any) -> np.ndarray:
            parts = np.array_split(np.asarray(rows), 16)  # in float64 the whole would be large
            products = np.concatenate([inputs @ part.T.astype(np.float64) for part in parts], axis=1)
            return products if bias is None else products + np.asarray(bias, np.float64)

        if one.w_gate is None:
            return np.maximum(sums(one.w_in, one.b_in), 0)
        return np.maximum(sums(one.w_gate, one.b_gate), 0) * sums(one.w_in, None)

    def exact(self, layer: int, number: int, kept: np.ndarray | None) -> np.ndarray:
        """Outputs (tokens, d) in float64 of all neurons, or of those kept (tokens, f)."""
        hidden = self.hidden(layer, number)
        hidden = hidden if kept is None else np.where(kept, hidden, 0)
        parts = zip(
            np.array_split(hidden, 16, axis=1),
            np.array_split(np.asarray(self.weights[layer].w_out), 16),
            strict=True,
        )
        return np.sum([values @ rows.astype(np.float64) for values, rows in parts], axis=0)

    def best(self, layer: int, number: int) -> Any:
        """The strongest neurons (k,) of a single token, ascending."""
        import jax.numpy as jnp

        from sparsejax.ops.sparse_ffn import hidden_values

        values = hidden_values(self.inputs[number], self.weights[layer], None, self.activation)
        ranked = np.argsort(-np.abs(np.asarray(values[0])), kind="stable")
        return jnp.asarray(np.sort(ranked[: self.top_k]).astype(np.int32))

    def best_mask(self, layer: int, number: int) -> np.ndarray:
        """The same as a mask (1, f)."""
        mask = np.zeros((1, self.sizes.d_ff), bool)
        mask[0, np.asarray(self.best(layer, number))] = True
        return mask

    def kept(self, layer: int, number: int) -> np.ndarray:
        """The mask (1, f) of the neurons that the predictor chooses."""
        from sparsejax.ops.sparse_ffn import top_k_mask

        return np.asarray(top_k_mask(self.scorers[layer].scores(self.inputs[number]), self.top_k))

    def recall(self, layer: int, number: int, kept: np.ndarray) -> float:
        """The part of the active ones among the k strongest neurons that is kept (tokens, f)."""
        sizes = np.abs(self.hidden(layer, number))
        least = -np.sort(-sizes, axis=1)[:, self.top_k - 1 : self.top_k]
        wanted = (sizes >= least) & (sizes > 0)
        return float((wanted & kept).sum() / wanted.sum())

    def _draw(self, key: Any, bias: Any) -> Any:
        import jax

        from sparsejax.ops.sparse_ffn import FFNWeights

        shape = self.sizes.d_ff, self.sizes.d_model
        w_in, w_out, w_gate = (
            self.sizes.d_model**-0.5 * jax.random.normal(one, shape) for one in jax.random.split(key, 3)
        )
        if self.sizes.gated:
            return FFNWeights(w_in, w_out, w_gate, b_gate=bias)
        return FFNWeights(w_in, w_out, b_in=bias)

    def _predictor(self, directions: Any, one: Any) -> Any:
        from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor

        rows, bias = (one.w_in, one.b_in) if one.w_gate is None else (one.w_gate, one.b_gate)
        return LowRankPredictor(directions, rows @ directions.T, bias)
