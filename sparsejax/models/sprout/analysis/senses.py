"""Whether a word uses the same neurons wherever it stands."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sprout.analysis.observation import Neurons, neuron_counts, observe
from sparsejax.typing import Params


class SenseOverlap(NamedTuple):
    """Jaccard indices of neuron sets, (l,) each.

    Attributes:
      same: of the same token in different places.
      different: of different tokens.
      chance: expected of two random sets of that size.
    """

    same: np.ndarray
    different: np.ndarray
    chance: np.ndarray


def jaccard(left: Any, right: Any) -> np.ndarray:
    """Jaccard index (*b) of two sets of neurons; 1 for two empty ones.

    Args:
      left: (*b, f) bool.
      right: (*b, f) bool.

    Example:
      >>> jaccard([True, True, False], [False, True, True]).round(3).item()
      0.333
    """
    left, right = np.asarray(left, bool), np.asarray(right, bool)
    both, either = (left & right).sum(axis=-1), (left | right).sum(axis=-1)
    return np.divide(both, either, out=np.ones(both.shape), where=either > 0)


def sense_overlap(
    model: Any,
    params: Params,
    contexts: tuple[Any, Any],
    positions: tuple[int, int],
    *,
    top_k: Neurons = None,
) -> np.ndarray:
    """How many neurons a word has in common with itself in another sentence, layer by layer.

    Args:
      model: `SproutLM`.
      params: its parameters.
      contexts: two sentences of ids, (t,) each, of any lengths.
      positions: of the word in each.
      top_k: neurons per token.

    Returns:
      (l,) Jaccard indices of the two sets.

    Raises:
      ValueError: a position is beyond its sentence.

    Source: specs/sprout.md section 5 (word senses).
    """
    used = []
    for tokens, position in zip(map(np.asarray, contexts), positions, strict=True):
        if not 0 <= position < len(tokens):
            raise ValueError(f"position {position} is beyond a sentence of {len(tokens)} tokens")
        used.append(used_neurons(model, params, tokens[None], top_k=top_k)[:, position])
    return jaccard(*used)


def token_overlap(used: Any, tokens: Any, *, pairs: int = 2000, seed: int = 0) -> SenseOverlap:
    """How much the neurons of a token depend on where it stands, over random pairs of places.

    Args:
      used: (l, n, f) bool of n places.
      tokens: (n,) ids.
      pairs: to draw, of equal and of different tokens each.
      seed: of the draw.

    Returns:
      `SenseOverlap`; NaN where there is no pair.

    Example:
      >>> used = np.asarray([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]], bool)
      >>> found = token_overlap(used, [7, 7, 8])
      >>> found.same.tolist(), found.different.tolist(), found.chance.round(3).tolist()
      ([1.0], [0.0], [0.333])
    """
    used, tokens = np.asarray(used, bool), np.asarray(tokens)
    equal, other = _pairs(tokens, pairs, np.random.default_rng(seed))
    share = used.mean(axis=(1, 2))
    return SenseOverlap(_mean(used, equal), _mean(used, other), share / np.where(share, 2 - share, 1))


def used_neurons(model: Any, params: Params, tokens: Any, *, top_k: Neurons = None) -> np.ndarray:
    """Which neurons each token uses: (l, b * t, f) bool.

    Args:
      model: `SproutLM`.
      params: its parameters.
      tokens: (b, t) ids.
      top_k: neurons per token.
    """
    return np.asarray(_used(model, params, jnp.asarray(tokens), neuron_counts(model, top_k)))


@partial(jax.jit, static_argnums=0)
def _used(model: Any, params: Params, tokens: jax.Array, top_k: jax.Array) -> jax.Array:
    return observe(model, params, tokens, top_k).used


def _pairs(tokens: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places (p, 2) of equal and of different tokens."""
    order = np.argsort(tokens, kind="stable")
    ranked = tokens[order]
    first = np.searchsorted(ranked, ranked, side="left")
    size = np.searchsorted(ranked, ranked, side="right") - first
    places = np.flatnonzero(size > 1)
    if not len(places):
        equal = np.zeros((0, 2), int)
    else:
        left = rng.choice(places, count)
        step = rng.integers(1, size[left])
        right = first[left] + (left - first[left] + step) % size[left]
        equal = np.stack([order[left], order[right]], axis=1)
    drawn = rng.integers(len(tokens), size=(count, 2))
    return equal, drawn[tokens[drawn[:, 0]] != tokens[drawn[:, 1]]]


def _mean(used: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    if not len(pairs):
        return np.full(len(used), np.nan)
    return np.stack([jaccard(layer[pairs[:, 0]], layer[pairs[:, 1]]).mean() for layer in used])
