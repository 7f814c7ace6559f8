"""How often every neuron is used, and how evenly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Neurons, Observation, summed
from sparsejax.models.sprout.config import Path
from sparsejax.typing import Params

_RARE = 0.1


class NeuronUsage(NamedTuple):
    """Counts over a text.

    Attributes:
      counts: (l, f) tokens that used a neuron.
      batch_counts: (l, f) batches of which at least one token did, as one published script counts.
      tokens: that were looked at.
      batches: that were looked at.
    """

    counts: np.ndarray
    batch_counts: np.ndarray
    tokens: int
    batches: int

    @property
    def frequency(self) -> np.ndarray:
        """(l, f) part of the tokens that used a neuron."""
        return self.counts / max(self.tokens, 1)


class UsageStatistics(NamedTuple):
    """Of every layer, (l,) each.

    Attributes:
      unique: neurons that any token used.
      never: neurons that none did.
      rare: neurons that were used, but less than a part of the mean.
      common: the others.
      max: largest frequency, as a part of the tokens.
      min: smallest.
      mean: mean frequency: top_k / d_ff.
      std: standard deviation of the frequencies.
      gini: 0 where all neurons are used alike, near 1 where few do everything.
    """

    unique: np.ndarray
    never: np.ndarray
    rare: np.ndarray
    common: np.ndarray
    max: np.ndarray
    min: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    gini: np.ndarray


def neuron_usage(
    model: Any,
    params: Params,
    batches: Any,
    *,
    top_k: Neurons = None,
    attention_masks: Iterable[Any] | None = None,
    path: Path = "masked",
) -> NeuronUsage:
    """Count how many tokens use each neuron of each layer.

    Args:
      model: `SproutLM`, or `SproutFFN`, which is one layer.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such; inputs (*b, d) of a bare FFN.
      top_k: neurons per token; None is the network's ``sparse_k``, else all.
      attention_masks: one (b, t) for each batch, 1 = keep; the others are not counted.
      path: "block" selects whole blocks.

    Returns:
      `NeuronUsage`.

    Raises:
      ValueError: there is no batch, or ``top_k`` cannot be.

    Example:
      >>> from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
      >>> ffn = SproutFFN(SproutFFNConfig(d_model=2, d_ff=4))
      >>> params = {"w_in": jnp.eye(4, 2), "w_out": jnp.eye(4, 2), "router": {"kernel": jnp.eye(2, 4)}}
      >>> neuron_usage(ffn, params, jnp.asarray([[1.0, 0], [1, 2], [0, 1]]), top_k=1).frequency.round(2)
      array([[0.33, 0.67, 0.  , 0.  ]])

    Source: specs/sprout.md section 5 (``analyze_neuron_usage``).
    """
    options: dict[str, Any] = {"top_k": top_k, "attention_masks": attention_masks, "path": path}
    return usage_from(summed(usage_sums, model, params, batches, **options))


def usage_sums(model: Any, seen: Observation) -> dict[str, jax.Array]:
    """What `usage_from` needs, of one batch."""
    del model
    counts = (seen.used & seen.counted[:, None]).sum(axis=1)
    return {
        "counts": counts,
        "batch_counts": (counts > 0).astype(jnp.int32),
        "tokens": seen.counted.sum(),
        "batches": jnp.asarray(1),
    }


def usage_from(sums: dict[str, Any]) -> NeuronUsage:
    """From the sums of all batches."""
    return NeuronUsage(sums["counts"], sums["batch_counts"], int(sums["tokens"]), int(sums["batches"]))


def usage_statistics(usage: NeuronUsage, *, rare: float = _RARE) -> UsageStatistics:
    """How evenly the neurons of each layer are used.

    Args:
      usage: counts.
      rare: a neuron is rare if it is used less than this part of the mean. The published scripts use 1, and
        5 tokens, which is ``5 * d_ff / (top_k * tokens)``.

    Returns:
      `UsageStatistics`.

    Example:
      >>> usage = NeuronUsage(np.asarray([[0, 1, 19, 20]]), np.ones((1, 4)), 20, 1)
      >>> found = usage_statistics(usage, rare=0.5)
      >>> [int(part[0]) for part in (found.unique, found.never, found.rare, found.common)]
      [3, 1, 1, 2]
    """
    counts, frequency = usage.counts, usage.frequency
    never = (counts == 0).sum(axis=-1)
    common = ((counts > 0) & (counts >= rare * counts.mean(axis=-1, keepdims=True))).sum(axis=-1)
    unique = counts.shape[-1] - never
    return UsageStatistics(
        unique=unique,
        never=never,
        rare=unique - common,
        common=common,
        max=frequency.max(axis=-1),
        min=frequency.min(axis=-1),
        mean=frequency.mean(axis=-1),
        std=frequency.std(axis=-1),
        gini=gini(counts),
    )


def gini(values: Any) -> np.ndarray:
    """Gini coefficient over the last axis; 0 where all values are 0.

    Args:
      values: (*b, f), none negative.

    Example:
      >>> gini([[1, 1, 1, 1], [0, 0, 0, 1]]).tolist()
      [0.0, 0.75]

    Source: specs/sprout.md section 5.
    """
    values = np.sort(np.asarray(values, np.float64), axis=-1)
    count, total = values.shape[-1], values.sum(axis=-1)
    ranked = (values * np.arange(1, count + 1)).sum(axis=-1)
    uneven = 2 * ranked / (count * np.where(total, total, 1)) - (count + 1) / count
    return np.where(total > 0, uneven, 0.0)
