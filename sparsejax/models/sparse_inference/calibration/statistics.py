"""What a predictor is worth: how much of what matters it finds, measured batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.calibration.rows import PIECE_SCORES, batches_of, checked_batch, pieces
from sparsejax.models.sparse_inference.calibration.strength import output_norms
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.models.sparse_inference.predictor.ahead import lag_of
from sparsejax.models.sparse_inference.predictor.learned import Predictor
from sparsejax.ops.sparse_ffn import FFNWeights, check_activation, top_k_mask
from sparsejax.ops.sparse_ffn.reference import hidden_values


@dataclass(frozen=True)
class PredictorStatistics:
    """Shares over all samples together, 0 to 1 but for the error.

    ``k`` is the number of neurons that are computed for a sample. A neuron is active where its value is above
    0, or with gates where it is not 0.

    Attributes:
      samples: measured.
      recall: of the k neurons with the largest ``|h|``, those computed.
      recall_by_contribution: likewise by ``|h|`` times the norm of the neuron's output row.
      recall_of_active: of the active neurons, those computed.
      precision: of the computed neurons, those active.
      energy_kept: sum of ``h^2`` over the computed neurons, over that of all.
      output_error: norm of what the outputs lose, over that of the outputs without their bias.
      active_fraction: neurons computed, of all.
      truly_active: neurons active, of all.

    Source: specs/sparse_inference.md section 2.
    """

    samples: int
    recall: float
    recall_by_contribution: float
    recall_of_active: float
    precision: float
    energy_kept: float
    output_error: float
    active_fraction: float
    truly_active: float


class RunningStatistics:
    """Statistics of samples that come in batches; memory is that of a piece of one.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.exact import Oracle
      >>> weights = FFNWeights(jnp.eye(4), jnp.eye(4))
      >>> oracle = Oracle(weights, activation="relu")
      >>> running = RunningStatistics(oracle, weights, SparsityConfig.with_top_k(1), activation="relu")
      >>> running.add(np.array([[3.0, 4.0, -1.0, -5.0]]))
      >>> found = running.result()
      >>> found.recall, found.recall_of_active, round(found.output_error, 6), found.active_fraction
      (1.0, 0.5, 0.6, 0.25)
    """

    def __init__(
        self,
        predictor: Predictor,
        weights: FFNWeights,
        sparsity: SparsityConfig,
        *,
        activation: str = "gelu_tanh",
        plan: FFNPlan | None = None,
    ):
        """No samples yet.

        Args:
          predictor: of the scores.
          weights: of the FFN.
          sparsity: how many neurons, or from which score on.
          activation: of the FFN.
          plan: blocks of neurons that are chosen together, hot ones; single neurons if None. Every sample
            chooses for itself.

        Raises:
          ValueError: an unknown activation, or more neurons than there are.
        """
        check_activation(activation, gated=weights.w_gate is not None)
        neurons, width = weights.w_in.shape
        sparsity.count(neurons)
        plan = FFNPlan() if plan is None else plan
        if plan.group != 1:
            raise ValueError("statistics are of samples that choose for themselves; give a plan with group=1")
        self._parts = predictor, weights
        self._static = {"sparsity": sparsity, "plan": plan, "activation": activation}
        shape = getattr(predictor, "shape", (neurons, width))
        if shape[0] != neurons:
            raise ValueError(f"the predictor scores {shape[0]} neurons, the FFN has {neurons}")
        self._widths = (shape[1], width) if lag_of(predictor) else (width, None)
        self._size = max(8, min(1024, PIECE_SCORES // neurons))
        self._sums = np.zeros(len(_Sums._fields))
        self._neurons = neurons

    def add(self, batch: Any) -> None:
        """Measure samples.

        Args:
          batch: inputs (*b, d) of the FFN; of a predictor that looks ahead a pair, what it reads (*b, d) and
            the inputs of the FFN (*b, e).

        Raises:
          ValueError: shapes that do not fit, NaN in the samples or in their scores.
        """
        rows = checked_batch(batch, self._widths)
        size = min(self._size, 1 << max(3, (len(rows[0]) - 1).bit_length()))
        for read, own, count in pieces(rows, size):
            there = np.arange(size) < count
            sums = np.asarray(_measure(*self._parts, read, own, there, **self._static), np.float64)
            if np.isnan(sums).any():
                raise ValueError("the scores or the FFN's values hold NaN; check their matrices")
            self._sums += sums

    def result(self) -> PredictorStatistics:
        """The shares so far.

        Raises:
          ValueError: there are no samples.
        """
        sums = _Sums(*self._sums.tolist())
        if not sums.samples:
            raise ValueError("there are no samples")
        all_neurons = sums.samples * self._neurons
        return PredictorStatistics(
            samples=int(sums.samples),
            recall=_share(sums.strong_found, sums.computed),
            recall_by_contribution=_share(sums.contributing_found, sums.computed),
            recall_of_active=_share(sums.active_found, sums.active),
            precision=_share(sums.active_found, sums.computed),
            energy_kept=_share(sums.energy_kept, sums.energy),
            output_error=_share(sums.lost, sums.outputs, empty=0.0) ** 0.5,
            active_fraction=sums.computed / all_neurons,
            truly_active=sums.active / all_neurons,
        )


def predictor_statistics(
    inputs: Any,
    predictor: Predictor,
    weights: FFNWeights,
    sparsity: SparsityConfig,
    *,
    activation: str = "gelu_tanh",
    plan: FFNPlan | None = None,
) -> PredictorStatistics:
    """What a predictor is worth on samples, best on others than it was calibrated with.

    Args:
      inputs: (*b, d) of the FFN, or an iterable of such batches, of which one is in memory at a time; of a
        predictor that looks ahead pairs of what it reads and the inputs of the FFN.
      predictor: of the scores.
      weights: of the FFN.
      sparsity: how many neurons, or from which score on.
      activation: of the FFN.
      plan: of the choice; single neurons if None.

    Raises:
      ValueError: no samples, shapes that do not fit, or NaN.

    Example:
      >>> from sparsejax.models.sparse_inference.predictor.exact import Dense
      >>> weights = FFNWeights(jnp.eye(4), jnp.eye(4))
      >>> batches = [np.ones((2, 4)), np.ones((3, 4))]
      >>> found = predictor_statistics(batches, Dense(4), weights, SparsityConfig(), activation="relu")
      >>> found.samples, found.output_error, found.active_fraction
      (5, 0.0, 1.0)
    """
    running = RunningStatistics(predictor, weights, sparsity, activation=activation, plan=plan)
    batches: Iterable[Any] = batches_of(inputs)
    for batch in batches:
        running.add(batch)
    return running.result()


class _Sums(NamedTuple):
    samples: Any
    computed: Any
    strong_found: Any
    contributing_found: Any
    active: Any
    active_found: Any
    energy: Any
    energy_kept: Any
    outputs: Any
    lost: Any


@partial(jax.jit, static_argnames=("sparsity", "plan", "activation"))
def _measure(
    predictor: Predictor,
    weights: FFNWeights,
    read: jax.Array,
    own: jax.Array,
    there: jax.Array,
    *,
    sparsity: SparsityConfig,
    plan: FFNPlan,
    activation: str,
) -> jax.Array:
    """`_Sums` of the samples (n, ...) that are ``there``; all NaN if a score or a value is."""
    true = there[:, None]
    values = jnp.where(true, hidden_values(own, weights, None, activation), 0)
    scores = jnp.where(true, predictor.scores(read), 0)
    mask = chosen(scores, sparsity, plan) & true
    active = (values > 0 if weights.w_gate is None else values != 0) & true
    computed, sizes = mask.sum(axis=-1, dtype=jnp.int32), jnp.abs(values)
    strong = _strongest(sizes, computed)
    contributing = _strongest(sizes * output_norms(weights), computed)
    w_out = weights.w_out.astype(values.dtype)
    sums = _Sums(
        samples=there.sum(),
        computed=computed.sum(),
        strong_found=(mask & strong).sum(),
        contributing_found=(mask & contributing).sum(),
        active=active.sum(),
        active_found=(mask & active).sum(),
        energy=jnp.square(values).sum(),
        energy_kept=jnp.square(jnp.where(mask, values, 0)).sum(),
        outputs=jnp.square(values @ w_out).sum(),
        lost=jnp.square(jnp.where(mask, 0, values) @ w_out).sum(),
    )
    broken = jnp.isnan(scores).any() | jnp.isnan(values).any()
    return jnp.where(broken, jnp.nan, jnp.stack([jnp.asarray(part, jnp.float32) for part in sums]))


_strongest = jax.vmap(top_k_mask)
"""The so many strongest of each row, as many as that row asks for."""


def _share(part: float, whole: float, *, empty: float = 1.0) -> float:
    """Part of a whole; of an empty one nothing is missed."""
    return float(part / whole) if whole else empty
