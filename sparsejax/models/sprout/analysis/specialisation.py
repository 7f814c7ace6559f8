"""Neurons that serve one topic rather than the others, and how alike topics route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Neurons, neuron_counts
from sparsejax.models.sprout.routing import Router
from sparsejax.models.sprout.selection import select
from sparsejax.typing import Params

SPECIALISED = 1.5
_PUBLISHED_EPSILON = 1e-8


class Specialisation(NamedTuple):
    """Of every neuron.

    Attributes:
      topic: (*b, f) number of the topic that it serves most; -1 if it serves none.
      ratio: (*b, f) of that topic's value and the largest of the others'.
      specialists: (*b, topics) neurons whose ratio is above the threshold, by their topic.
    """

    topic: np.ndarray
    ratio: np.ndarray
    specialists: np.ndarray


def topic_specialisation(
    values: Any, *, threshold: float = SPECIALISED, smoothing: float = 0.0, published: bool = False
) -> Specialisation:
    """Which topic every neuron serves, and how much more than the next.

    Args:
      values: (topics, *b, f) how much each topic uses each neuron: frequencies of `neuron_usage`, or mean
        absolute activations; none negative.
      threshold: a larger ratio makes a neuron specialised.
      smoothing: added to all values, such as one token's worth, so that a neuron that one topic used once
        and the others never has no infinite ratio.
      published: the published ratio, ``value / (largest other + 1e-8)``, for every topic: it takes negative
        values, which it breaks for, and counts a neuron for each topic that passes.

    Returns:
      `Specialisation`.

    Raises:
      ValueError: there are fewer than two topics, or a value is negative.

    Example:
      >>> found = topic_specialisation([[0.4, 0.2, 0.0], [0.1, 0.2, 0.0]])
      >>> found.topic.tolist(), found.ratio.tolist(), found.specialists.tolist()
      ([0, 0, -1], [4.0, 1.0, 1.0], [1, 0])

    Source: specs/sprout.md section 5 (topic specialisation and its pitfalls).
    """
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or len(values) < 2:
        raise ValueError(f"values must be (topics, ..., neurons) of two topics at least, not {values.shape}")
    if not published and values.min() < 0:
        raise ValueError("values must not be negative: give frequencies, or absolute activations")
    order = np.sort(values, axis=0)
    best, second = order[-1], order[-2]
    topic = np.where(best == 0, -1, values.argmax(axis=0))
    if published:
        ratios = values / (np.where(values == best, second, best) + _PUBLISHED_EPSILON)
        return Specialisation(topic, ratios.max(axis=0), _last_first((ratios > threshold).sum(axis=-1)))
    top, bottom = best + smoothing, second + smoothing
    ratio = np.divide(top, bottom, out=np.where(top > 0, np.inf, 1.0), where=bottom > 0)
    chosen = ratio > threshold
    return Specialisation(
        topic,
        ratio,
        _last_first(np.stack([(chosen & (topic == n)).sum(axis=-1) for n in range(len(values))])),
    )


def pattern_cosines(patterns: Any) -> np.ndarray:
    """Cosine (topics, topics) of the frequencies with which topics use the neurons.

    Args:
      patterns: (topics, f).

    Example:
      >>> pattern_cosines([[1.0, 0], [1, 1]]).round(3).tolist()
      [[1.0, 0.707], [0.707, 1.0]]
    """
    patterns = np.asarray(patterns, np.float64)
    norms = np.linalg.norm(patterns, axis=1, keepdims=True)
    unit = patterns / np.where(norms, norms, 1)
    return unit @ unit.T


def pattern_jaccards(patterns: Any) -> np.ndarray:
    """Jaccard index (topics, topics) of the sets of neurons that topics use at all.

    Args:
      patterns: (topics, f); above 0 is used.

    Example:
      >>> pattern_jaccards([[0.1, 0, 0], [1, 1, 0]]).tolist()
      [[1.0, 0.5], [0.5, 1.0]]
    """
    used = (np.asarray(patterns) > 0).astype(np.int64)
    both = used @ used.T
    own = used.sum(axis=1)
    either = own[:, None] + own[None] - both
    return np.divide(both, either, out=np.ones(both.shape), where=either > 0)


def embedding_patterns(model: Any, params: Params, batches: Iterable[Any], *, top_k: Neurons) -> np.ndarray:
    """Frequencies (topics, f) with which the first router would pick neurons for bare embeddings.

    The published script compares topics by these. No FFN reads such inputs: attention and normalisation come
    before it; for what the network does take `neuron_usage` of each topic.

    Args:
      model: `SproutLM`.
      params: its parameters.
      batches: ids (b, t) of each topic.
      top_k: neurons per token.

    Source: specs/sprout.md sections 5 and 9 (``routing_patterns``).
    """
    count = neuron_counts(model, top_k)[0]
    return np.stack([np.asarray(_pattern(model, params, jnp.asarray(batch), count)) for batch in batches])


def _pattern(model: Any, params: Params, tokens: jax.Array, top_k: jax.Array) -> jax.Array:
    config, ffn = model.config.ffn, params["layer_0"]["ffn"]
    positions = params["position_embedding"]["embedding"][: tokens.shape[-1]]
    inputs = params["token_embedding"]["embedding"][tokens] + positions
    scores = cast(jax.Array, Router(config).apply({"params": ffn["router"]}, inputs, ffn["w_in"]))
    mask = select(config, scores, top_k, blocks=config.selects_blocks).mask
    return mask.reshape(-1, config.d_ff).mean(axis=0)


def _last_first(counts: np.ndarray) -> np.ndarray:
    """(*b, topics) from (topics, *b)."""
    return np.moveaxis(counts, 0, -1)
