"""Which neurons scores select: indices or masks, neuron by neuron or in whole blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, check_scores, choice_mask, chosen
from sparsejax.ops.sparse_ffn import mask_indices, top_k_indices


def select(scores: jax.Array, sparsity: SparsityConfig, *, strict: bool = False) -> jax.Array:
    """The neurons that scores select, ascending.

    A number of neurons is taken from the largest score down, of equal ones the lowest index first; a
    threshold takes the scores above it, not those equal to it.

    Args:
      scores: (*b, f), or (f,) where a threshold decides.
      sparsity: how many, or from which score on.
      strict: refuse an empty selection.

    Returns:
      int32 (*b, k) where a number decides, which may be traced; else (m,), possibly empty, only outside of
      jit.

    Raises:
      ValueError: NaN scores (outside of jit), more neurons than there are, an empty selection in strict mode,
        or a threshold with several tokens or traced scores, whose selections have no common length.

    Example:
      >>> scores = jnp.array([0.1, 0.7, -0.2, 0.7])
      >>> select(scores, SparsityConfig.with_top_k(1)).tolist()
      [1]
      >>> select(scores, SparsityConfig.with_threshold(0.1)).tolist()
      [1, 3]

    Source: specs/sparse_inference.md section 2.
    """
    _check(scores)
    top_k = sparsity.count(scores.shape[-1])
    if top_k is not None:
        return top_k_indices(scores, top_k)
    found = np.flatnonzero(_mask_of_one(scores, sparsity, FFNPlan()))
    _check_some(found, sparsity, strict=strict)
    return jnp.asarray(found, jnp.int32)


def select_mask(scores: jax.Array, sparsity: SparsityConfig, *, block_size: int = 1) -> jax.Array:
    """Whether each neuron is selected.

    Args:
      scores: (*b, f).
      sparsity: how many, or from which score on.
      block_size: neurons that are selected together, contiguous; see `select_blocks`.

    Returns:
      bool (*b, f). Of NaN scores, traced ones count as the largest of a number and never exceed a threshold.

    Raises:
      ValueError: NaN scores (outside of jit), or more neurons than there are.

    Example:
      >>> select_mask(jnp.array([[0.5, -1.0], [-2.0, -3.0]]), SparsityConfig.with_threshold(0.0)).tolist()
      [[True, False], [False, False]]
    """
    _check(scores)
    flat = scores.reshape(-1, scores.shape[-1])
    return chosen(flat, sparsity, FFNPlan(block_size=block_size)).reshape(scores.shape)


def select_blocks(
    scores: jax.Array, sparsity: SparsityConfig, *, block_size: int, strict: bool = False
) -> jax.Array:
    """The blocks of contiguous neurons that scores select, ascending.

    A number of neurons becomes the nearest number of blocks, at least one, and a block's score is the sum of
    the squares of its positive ones: for scores that estimate activations, the energy that it keeps. A
    threshold takes the blocks with a score above it.

    Args:
      scores: (*b, f), or (f,) where a threshold decides.
      sparsity: how many neurons, or from which score on.
      block_size: neurons of a block; the last one may be shorter.
      strict: refuse an empty selection.

    Returns:
      int32 (*b, k) where a number decides, which may be traced; else (m,), only outside of jit.

    Raises:
      ValueError: as `select`.

    Example:
      >>> scores = jnp.array([0.1, 0.7, -0.9, 0.4, 0.5])
      >>> select_blocks(scores, SparsityConfig.with_top_k(3), block_size=2).tolist()
      [0, 2]
    """
    _check(scores)
    plan, neurons = FFNPlan(block_size=block_size), scores.shape[-1]
    top_k = sparsity.count(neurons)
    if top_k is not None:
        mask = choice_mask(scores.reshape(-1, neurons), sparsity, plan)
        blocks = mask_indices(mask, plan.count(top_k, neurons))
        return blocks.reshape(*scores.shape[:-1], blocks.shape[-1])
    found = np.flatnonzero(_mask_of_one(scores, sparsity, plan))
    _check_some(found, sparsity, strict=strict)
    return jnp.asarray(found, jnp.int32)


def _mask_of_one(scores: jax.Array, sparsity: SparsityConfig, plan: FFNPlan) -> np.ndarray:
    """The mask (blocks,) of one token's scores, with values."""
    if isinstance(scores, jax.core.Tracer) or scores.ndim != 1:
        raise ValueError(
            f"a threshold selects another number of neurons for every token: scores {scores.shape} must be "
            "those of one, outside of jit; use select_mask instead"
        )
    return np.asarray(choice_mask(scores[None], sparsity, plan)[0])


def _check(scores: jax.Array) -> None:
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores of shape {scores.shape} are of no neurons")
    check_scores(scores)


def _check_some(found: np.ndarray, sparsity: SparsityConfig, *, strict: bool) -> None:
    if strict and not found.size:
        raise ValueError(f"no active neurons: no score exceeds the threshold {sparsity.threshold}")
