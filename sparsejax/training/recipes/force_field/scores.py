"""What a force field is worth on held-out structures: errors over all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sparsejax.models.force_field import ForceFieldConfig
from sparsejax.models.force_field.batches import LabelledBatch
from sparsejax.models.force_field.losses import ForceFieldLoss, LossMasks, Quantities, force_field_loss
from sparsejax.models.force_field.metrics import metric_sums, pooled_metrics
from sparsejax.training.recipes.force_field.parts import predicted
from sparsejax.typing import Params

_LOSS = "loss"
_TERMS = ("energy", "force", "angular", "stress")


class ForceFieldScore(NamedTuple):
    """Errors on held-out structures.

    Attributes:
      loss: the weighted sum of what is minimised.
      metrics: of `pooled_metrics`.
    """

    loss: float
    metrics: Mapping[str, float]

    @property
    def words(self) -> str:
        """The errors that count, for the progress shown."""
        units = {"force_rmse": ("force", 1, "eV/A"), "energy_per_atom_rmse": ("energy", 1e3, "meV/atom")}
        parts = (
            f"{what} {self.metrics[name] * factor:.3g} {unit}"
            for name, (what, factor, unit) in units.items()
            if name in self.metrics
        )
        return f"validation RMSE: {', '.join(parts)}"

    def told(self) -> dict[str, float]:
        """All of it as numbers by name."""
        return {_LOSS: self.loss, **self.metrics}

    @classmethod
    def read(cls, told: Mapping[str, float]) -> ForceFieldScore:
        """The inverse of `told`.

        Example:
          >>> score = ForceFieldScore(2.0, {"force_rmse": 0.1})
          >>> ForceFieldScore.read(score.told()) == score
          True
        """
        return cls(told[_LOSS], {name: told[name] for name in told if name != _LOSS})


def scorer(
    config: ForceFieldConfig, loss: ForceFieldLoss, *, stress: bool, pooled: bool = True
) -> Callable[[Params, Iterable[LabelledBatch]], ForceFieldScore]:
    """A function that scores parameters on batches; it compiles once per shape.

    Args:
      config: of the network.
      loss: settings of what is minimised.
      stress: predict it.
      pooled: take each term's mean over all structures or atoms; otherwise the mean of the losses of batches,
        as published, which depends on how structures fall into batches. Metrics are pooled in any case.
    """

    @jax.jit
    def of_batch(params: Params, batch: LabelledBatch) -> tuple[Any, Mapping[str, Array]]:
        found, labels, masks = predicted(config, params, batch, stress=stress)
        total, metrics = force_field_loss(found, labels, loss, masks)
        terms = {name: (metrics[name], _count(name, labels, masks)) for name in _TERMS if name in metrics}
        return (total, terms), metric_sums(found, labels, masks)

    def score(params: Params, batches: Iterable[LabelledBatch]) -> ForceFieldScore:
        found = jax.device_get([of_batch(params, batch) for batch in batches])
        losses = [part for part, _ in found]
        total = _pooled(losses, loss) if pooled else float(np.mean([total for total, _ in losses]))
        return ForceFieldScore(total, pooled_metrics(sums for _, sums in found))

    return score


def _count(name: str, labels: Quantities, masks: LossMasks) -> Array:
    """What a term is the mean over."""
    assert masks.atoms is not None and masks.graphs is not None
    if name == "stress":
        labelled = labels["stress_mask"]
        assert labelled is not None
        return (masks.graphs & labelled).sum()
    return jnp.asarray(masks.graphs if name == "energy" else masks.atoms).sum()


def _pooled(losses: Iterable[tuple[Any, Mapping[str, Any]]], loss: ForceFieldLoss) -> float:
    terms = [terms for _, terms in losses]
    mean = partial(_mean, terms)
    total: float = sum(getattr(loss, f"{name}_weight") * mean(name) for name in terms[0])
    return total


def _mean(terms: Iterable[Mapping[str, Any]], name: str) -> float:
    values, counts = np.array([row[name] for row in terms], np.float64).T
    return float((values * counts).sum() / max(counts.sum(), 1))
