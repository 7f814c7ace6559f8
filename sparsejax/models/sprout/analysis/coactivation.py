"""Which neurons are used by the same tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Neurons, Observation, summed
from sparsejax.models.sprout.config import Path
from sparsejax.typing import Params

Normalisation = Literal["correlation", "cosine", "jaccard"]


class Coactivation(NamedTuple):
    """Counts over a text.

    Attributes:
      counts: (l, f, f) tokens that used both neurons; the diagonal is each one's own count.
      tokens: that were looked at.
    """

    counts: np.ndarray
    tokens: int


def coactivation(
    model: Any,
    params: Params,
    batches: Any,
    *,
    top_k: Neurons = None,
    attention_masks: Iterable[Any] | None = None,
    path: Path = "masked",
) -> Coactivation:
    """Count how many tokens use each pair of neurons of a layer.

    Args:
      model: `SproutLM`, or `SproutFFN`, which is one layer.
      params: its parameters.
      batches: ids (b, t), or an iterable or array of such; inputs (*b, d) of a bare FFN.
      top_k: neurons per token; None is the network's ``sparse_k``, else all.
      attention_masks: one (b, t) for each batch, 1 = keep; the others are not counted.
      path: "block" selects whole blocks.

    Returns:
      `Coactivation`.

    Example:
      >>> from sparsejax.models.sprout import SproutFFN, SproutFFNConfig
      >>> ffn = SproutFFN(SproutFFNConfig(d_model=2, d_ff=3))
      >>> params = {"w_in": jnp.eye(3, 2), "w_out": jnp.eye(3, 2), "router": {"kernel": jnp.eye(2, 3)}}
      >>> coactivation(ffn, params, jnp.asarray([[1.0, 2], [-1, 1]]), top_k=2).counts[0].tolist()
      [[1, 1, 0], [1, 2, 1], [0, 1, 1]]
    """
    options: dict[str, Any] = {"top_k": top_k, "attention_masks": attention_masks, "path": path}
    return coactivation_from(summed(coactivation_sums, model, params, batches, **options))


def coactivation_sums(model: Any, seen: Observation) -> dict[str, jax.Array]:
    """What `coactivation_from` needs, of one batch."""
    del model
    used = (seen.used & seen.counted[:, None]).astype(jnp.float32)  # exact up to 2^24 tokens
    return {"pairs": jnp.einsum("lnf,lng->lfg", used, used), "tokens": seen.counted.sum()}


def coactivation_from(sums: dict[str, Any]) -> Coactivation:
    """From the sums of all batches."""
    return Coactivation(np.rint(sums["pairs"]).astype(np.int64), int(sums["tokens"]))


def normalised_coactivation(found: Coactivation, how: Normalisation = "correlation") -> np.ndarray:
    """Counts of pairs (l, f, f) made comparable; 0 where a neuron is used by no token, or by all.

    Args:
      found: counts.
      how: "correlation" of the two neurons' use over tokens, 0 if they are independent; "cosine" counts over
        the geometric mean of the neurons' own; "jaccard" counts over those of either neuron.

    Example:
      >>> pairs = Coactivation(np.asarray([[[2, 1], [1, 2]]]), 4)
      >>> [normalised_coactivation(pairs, how)[0, 0, 1].round(3).item() for how in ("correlation", "cosine")]
      [0.0, 0.5]
    """
    both = found.counts.astype(np.float64)
    own = np.diagonal(both, axis1=-2, axis2=-1)
    left, right = own[..., :, None], own[..., None, :]
    if how == "jaccard":
        return _ratio(both, left + right - both)
    if how == "cosine":
        return _ratio(both, np.sqrt(left * right))
    if how != "correlation":
        raise ValueError(f"how must be 'correlation', 'cosine' or 'jaccard', not {how!r}")
    spread = own * (found.tokens - own)
    return _ratio(found.tokens * both - left * right, np.sqrt(spread[..., :, None] * spread[..., None, :]))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
