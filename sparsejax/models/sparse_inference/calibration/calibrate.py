"""Calibration: from samples of an FFN's inputs to a predictor of its neurons and a threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from sparsejax.models.sparse_inference.calibration.moments import Moments
from sparsejax.models.sparse_inference.calibration.options import FitOptions, check_wanted, wanted_count
from sparsejax.models.sparse_inference.calibration.rows import (
    PIECE_SCORES,
    Reservoir,
    Rows,
    batches_of,
    checked_batch,
    pieces,
)
from sparsejax.models.sparse_inference.calibration.solve import Formula, solve_sums, solve_targets
from sparsejax.models.sparse_inference.calibration.strength import jitted_strengths, output_norms
from sparsejax.models.sparse_inference.calibration.threshold import threshold_of_fraction, threshold_of_recall
from sparsejax.models.sparse_inference.calibration.tune import Tuned, mlp_of_low_rank, tune
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.predictor.ahead import LookAhead
from sparsejax.models.sparse_inference.predictor.exact import GateThreshold
from sparsejax.models.sparse_inference.predictor.learned import LowRankPredictor, Predictor
from sparsejax.ops.sparse_ffn import FFNWeights, check_activation, top_k_mask

_THRESHOLDED = 1 << 25  # most scores that a threshold is a quantile of


@dataclass(frozen=True)
class Calibration:
    """What was found for one FFN.

    Attributes:
      predictor: of its neurons.
      sparsity: how scores select, with a threshold where one was asked for.
      samples: seen.
      tuned: of gradient descent, if there was any.
    """

    predictor: Predictor
    sparsity: SparsityConfig
    samples: int
    tuned: Tuned | None = None


class Calibrator:
    """Calibrates a predictor for one FFN from samples that come in batches and are not kept.

    For several layers at a time, as one pass through a network gives them, use one of each.

    Example:
      >>> draws = np.random.default_rng(0)
      >>> w_in = draws.normal(size=(12, 2)) @ draws.normal(size=(2, 6))  # of rank 2
      >>> weights = FFNWeights(jnp.asarray(w_in), jnp.asarray(draws.normal(size=(12, 6))))
      >>> calibrator = Calibrator(weights, SparsityConfig.with_top_k(3), activation="relu", rank=2)
      >>> for _ in range(4):
      ...     calibrator.add(draws.normal(size=(50, 6)))
      >>> found = calibrator.finish()
      >>> x = jnp.asarray(draws.normal(size=(5, 6)))
      >>> found.samples, bool(jnp.allclose(found.predictor.scores(x), x @ weights.w_in.T, atol=0.1))
      (200, True)
    """

    def __init__(
        self,
        weights: FFNWeights,
        sparsity: SparsityConfig | None = None,
        *,
        activation: str = "gelu_tanh",
        **options: Any,
    ):
        """No samples yet.

        Args:
          weights: of the FFN: f neurons.
          sparsity: how many neurons are to be computed, see `calibrate`.
          activation: of the FFN.
          options: fields of `FitOptions`.

        Raises:
          ValueError: as `calibrate`, but for the samples.
        """
        fit, gated = FitOptions(**options), weights.w_gate is not None
        check_activation(activation, gated=gated)
        neurons, width = weights.w_in.shape
        self._sparsity = SparsityConfig.with_active_fraction(0.1) if sparsity is None else sparsity
        self._wanted = wanted_count(self._sparsity, neurons)
        if fit.steps or fit.target_recall is not None:
            check_wanted(self._wanted, activation, gated=gated)
        fit.linear_rank(width, neurons)
        self._weights, self._activation, self._fit = weights, activation, fit
        self._by = fit.strength(gated=gated)
        self._sums = fit.fits_sums(activation, gated=gated)
        self._rows = Reservoir(fit.kept_rows, seed=fit.seed)
        self._moments: Moments | None = None
        self._width: int | None = None if fit.lag else width  # of what is read: the first batch says so

    def add(self, batch: Any) -> None:
        """Learn from samples.

        Args:
          batch: inputs (*b, d) of the FFN; with a ``lag`` a pair, the inputs (*b, e) of the earlier layer and
            those of the FFN.

        Raises:
          ValueError: shapes that do not fit, unequal counts, NaN.
        """
        neurons, width = self._weights.w_in.shape
        if self._width is None:
            pair = isinstance(batch, tuple) and len(batch) == 2 and np.ndim(batch[0]) > 0
            self._width = np.shape(batch[0])[-1] if pair else width
        rows = checked_batch(batch, (self._width, width if self._fit.lag else None))
        self._rows.add(rows)
        if self._fit.kind == "gate":
            return
        if self._moments is None:
            own = width if self._fit.lag else None
            self._moments = Moments(self._width, own if self._sums else neurons)
        if self._sums:
            self._moments.add(rows[0], rows[1] if self._fit.lag else None)
            return
        for read, values, count in pieces(rows, _piece(len(rows[0]), neurons)):
            self._moments.add(read[:count], self._strengths(values)[:count])

    def finish(self) -> Calibration:
        """The predictor and the selection that the samples say are best.

        Raises:
          ValueError: no samples; or gradient descent that diverges.
        """
        rows = self._rows.rows()
        found, tuned = self._solved(rows), None
        if self._fit.steps:
            tuned = self._tuned(found, rows)
            found = tuned.predictor
        sparsity = self._thresholded(found, rows)
        predictor = LookAhead(found, self._fit.lag) if self._fit.lag else found
        return Calibration(predictor, sparsity, self._rows.seen, tuned)

    def _solved(self, rows: Rows) -> Any:
        weights, fit = self._weights, self._fit
        if self._moments is None:
            return GateThreshold.of_weights(weights, activation=self._activation)
        neurons = weights.w_in.shape[0]
        common = {"ridge": fit.ridge, "formula": fit.formula}
        rank = fit.linear_rank(rows[0].shape[1], neurons)
        if self._sums:
            gated = weights.w_gate is not None
            w, b = (weights.w_gate, weights.b_gate) if gated else (weights.w_in, weights.b_in)
            scale = np.asarray(output_norms(weights)) if self._by == "contribution" else None
            bias = None if b is None else np.asarray(b)
            found = solve_sums(self._moments, np.asarray(w), bias, rank=rank, scale=scale, **common)  # type: ignore[arg-type]
        else:
            found = solve_targets(self._moments, rank=rank, **common)  # type: ignore[arg-type]
        return mlp_of_low_rank(found) if fit.kind == "mlp" else found

    def _tuned(self, predictor: Any, rows: Rows) -> Tuned:
        fit = self._fit
        return tune(
            predictor,
            rows[0],
            self._wanted_of(rows[1]),
            steps=fit.steps,
            batch_size=fit.batch_size,
            learning_rate=fit.learning_rate,
            seed=fit.seed,
        )

    def _thresholded(self, predictor: Any, rows: Rows) -> SparsityConfig:
        """The selection, with a quantile of the scores where a threshold is asked for."""
        sparsity, recall = self._sparsity, self._fit.target_recall
        adaptive = sparsity.adaptive_threshold and sparsity.target_sparsity is not None
        if recall is None and (sparsity.top_k is not None or not adaptive):
            return sparsity
        neurons = self._weights.w_in.shape[0]
        rows = tuple(part[: max(8, _THRESHOLDED // neurons)] for part in rows)  # type: ignore[assignment]
        scores = np.concatenate(
            [
                np.asarray(_scores(predictor, read))[:count]
                for read, _, count in pieces(rows, _piece(len(rows[0]), neurons))
            ]
        )
        if recall is not None:
            return sparsity.calibrated(threshold_of_recall(scores, self._wanted_of(rows[1]), recall))
        assert sparsity.target_sparsity is not None
        return sparsity.calibrated(threshold_of_fraction(scores, 1 - sparsity.target_sparsity))

    def _wanted_of(self, own: np.ndarray) -> np.ndarray:
        """Mask (n, f) of the strongest neurons, or those that are not 0."""
        size = _piece(len(own), self._weights.w_in.shape[0])
        found = [
            np.asarray(_wanted(self._strengths(part), self._wanted))[:count]
            for part, _, count in pieces((own, own), size)
        ]
        return np.concatenate(found)

    def _strengths(self, own: np.ndarray) -> np.ndarray:
        return np.asarray(jitted_strengths(own, self._weights, activation=self._activation, by=self._by))


def calibrate(
    inputs: Any,
    weights: FFNWeights,
    sparsity: SparsityConfig | None = None,
    *,
    activation: str = "gelu_tanh",
    **options: Any,
) -> Calibration:
    """A predictor of which neurons an FFN needs, fitted to samples of its inputs.

    The closed form needs the products of the samples alone, so that any number of them may stream by; what
    else needs samples, thresholds and gradient descent, gets a uniform choice of them that is kept.

    Args:
      inputs: (*b, d), or an iterable of such batches, of which one is in memory at a time; with a ``lag``
        pairs of the earlier layer's inputs and the FFN's own.
      weights: of the FFN: f neurons.
      sparsity: how many neurons are to be computed; of ``with_target_sparsity`` the threshold becomes that
        quantile of the scores. None is a tenth of them.
      activation: of the FFN, a name in `ACTIVATIONS` or, with gates, `GATED_ACTIVATIONS`.
      options: fields of `FitOptions`: ``rank``, ``kind``, ``fine_tune``, ``target_recall``, ``by`` and more.

    Returns:
      `Calibration`: ``predictor`` with ``scores(inputs)``, and ``sparsity`` for this layer.

    Raises:
      ValueError: no samples, another width, unequal counts, NaN, a rank above min(d, f), top_k above f, or
        names and numbers that cannot be right.

    Example:
      >>> draws = np.random.default_rng(0)
      >>> weights = FFNWeights(*jnp.asarray(draws.normal(size=(2, 40, 8))))
      >>> x = draws.normal(size=(500, 2)) @ draws.normal(size=(2, 8))
      >>> found = calibrate(x, weights, SparsityConfig.with_target_sparsity(0.75), activation="relu", rank=2)
      >>> share = float((found.predictor.scores(jnp.asarray(x)) > found.sparsity.threshold).mean())
      >>> round(share, 3)
      0.25

    Source: specs/sparse_inference.md section 2, where the original's does nothing.
    """
    calibrator = Calibrator(weights, sparsity, activation=activation, **options)
    batches: Iterable[Any] = batches_of(inputs)
    for batch in batches:
        calibrator.add(batch)
    return calibrator.finish()


def fit_low_rank(
    inputs: Any, targets: Any = None, *, rank: int, ridge: float = 1e-3, formula: Formula = "centred"
) -> LowRankPredictor:
    """The best linear predictor of this rank of any targets, by reduced-rank ridge regression.

    Args:
      inputs: (n, d); or, without ``targets``, an iterable of pairs of batches (n, d) and (n, f).
      targets: (n, f), what the scores are to be.
      rank: 1 to min(d, f).
      ridge: weight of the coefficients' squares.
      formula: see `Formula`.

    Raises:
      ValueError: no samples, unequal counts, NaN, or a rank or ridge out of range.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(50, 3))
      >>> predictor = fit_low_rank(x, x @ np.ones((3, 5)) + 2, rank=1, ridge=1e-9)
      >>> bool(np.allclose(predictor.scores(jnp.ones(3)), 5, atol=1e-3))
      True
    """
    moments, widths = None, (0, 0)
    for batch in batches_of(inputs if targets is None else (inputs, targets)):
        if moments is None and isinstance(batch, tuple) and len(batch) == 2 and all(map(np.ndim, batch)):
            widths = np.shape(batch[0])[-1], np.shape(batch[1])[-1]
            moments = Moments(*widths)
        rows = checked_batch(batch, widths)
        assert moments is not None
        moments.add(*rows)
    if moments is None:
        raise ValueError("there are no samples")
    return solve_targets(moments, rank=rank, ridge=ridge, formula=formula)


def _piece(rows: int, neurons: int) -> int:
    """Rows of a piece: a power of two, so that few shapes are compiled."""
    largest = 1 << max(3, (PIECE_SCORES // neurons).bit_length() - 1)
    return min(largest, 1 << max(3, (rows - 1).bit_length()))


@jax.jit
def _scores(predictor: Any, rows: jax.Array) -> jax.Array:
    return predictor.scores(rows)


@partial(jax.jit, static_argnums=1)
def _wanted(found: jax.Array, count: int | None) -> jax.Array:
    return found > 0 if count is None else top_k_mask(found, count)
