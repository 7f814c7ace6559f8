"""Which neurons of an FFN a token computes, from their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.crossover import Path
from sparsejax.ops.counts import check_count
from sparsejax.ops.sparse_ffn import top_k_mask


@dataclass(frozen=True)
class FFNPlan:
    """How neurons are chosen, and how the chosen ones are computed.

    Attributes:
      block_size: neurons that are chosen together, contiguous; the last block may be shorter.
      group: tokens, one after the other, that share a choice; 1 gives each its own, 0 all the same one.
      hot: the first so many neurons are always computed; they count among those asked for.
      path: how, never what, but for "dense", which computes all neurons; "auto" is `crossover.choose_path`.

    Example:
      >>> FFNPlan(block_size=32).hot
      0
    """

    block_size: int = 1
    group: int = 1
    hot: int = 0
    path: Path = "auto"

    def __post_init__(self):
        """Refuse sizes that cannot be."""
        for name, least in (("block_size", 1), ("group", 0), ("hot", 0)):
            check_count(name, getattr(self, name), least)
        if self.path not in get_args(Path):
            raise ValueError(f"no path {self.path!r}; choose one of {get_args(Path)}")

    def blocks(self, neurons: int) -> int:
        """Blocks that so many neurons make.

        Example:
          >>> FFNPlan(block_size=32).blocks(100)
          4
        """
        return -(-neurons // self.block_size)

    def groups(self, tokens: int) -> int:
        """Choices that so many tokens make.

        Example:
          >>> FFNPlan(group=128).groups(300), FFNPlan(group=0).groups(300)
          (3, 1)
        """
        return -(-tokens // self.group) if self.group else 1

    def count(self, top_k: int, neurons: int) -> int:
        """Blocks that hold about ``top_k`` neurons: rounded to the nearest, at least one.

        Example:
          >>> FFNPlan(block_size=32).count(1101, 11008), FFNPlan().count(1101, 11008)
          (34, 1101)
        """
        return min(self.blocks(neurons), max(1, round(top_k / self.block_size)))


def choice_mask(scores: jax.Array, sparsity: SparsityConfig | jax.Array, plan: FFNPlan) -> jax.Array:
    """Which blocks each group of tokens computes.

    A count takes those with the largest scores. Where neurons or tokens choose together, the squares of their
    positive scores are summed: for scores that estimate activations this is what the choice keeps. A
    threshold takes every block of which a neuron exceeds it for a token of the group.

    Args:
      scores: (n, f) of neurons for tokens.
      sparsity: how many, or from which score on; or an active fraction, which may be traced.
      plan: sizes of blocks and groups.

    Returns:
      bool (groups, blocks); hot ones are true.

    Example:
      >>> scores = jnp.array([[1.0, -3.0, 2.0, 1.0]])
      >>> choice_mask(scores, SparsityConfig.with_top_k(2), FFNPlan(block_size=2)).tolist()
      [[False, True]]
    """
    tokens, neurons = scores.shape
    groups, blocks = plan.groups(tokens), plan.blocks(neurons)
    top_k = sparsity.count(neurons) if isinstance(sparsity, SparsityConfig) else None
    above = isinstance(sparsity, SparsityConfig) and top_k is None
    if blocks == neurons and groups == tokens:
        together = scores
    elif above:
        together = _in_blocks(scores, plan, -jnp.inf).max(axis=(1, 3), initial=-jnp.inf)
    else:
        together = _in_blocks(jnp.square(jax.nn.relu(scores)), plan, 0).sum(axis=1).sum(axis=-1)
    always = jnp.arange(blocks) < -(-plan.hot // plan.block_size)
    if isinstance(sparsity, SparsityConfig):
        if top_k is None:
            assert sparsity.threshold is not None
            return always | (together > sparsity.threshold)
        count: int | jax.Array = plan.count(top_k, neurons)
    else:
        wanted = jnp.clip(jnp.round(sparsity * neurons), 1, neurons)
        count = jnp.clip(jnp.round(wanted / plan.block_size), 1, blocks).astype(jnp.int32)
    return top_k_mask(jnp.where(always, jnp.inf, together), count)


def chosen(scores: jax.Array, sparsity: SparsityConfig | jax.Array, plan: FFNPlan) -> jax.Array:
    """Which neurons each token computes: what every path is held to.

    Args:
      scores: (n, f) of neurons for tokens.
      sparsity: as of `choice_mask`.
      plan: of the choice.

    Returns:
      bool (n, f).

    Example:
      >>> chosen(jnp.array([[1.0, 4.0, 3.0]]), SparsityConfig.with_top_k(2), FFNPlan()).tolist()
      [[False, True, True]]
    """
    mask, (tokens, neurons) = choice_mask(scores, sparsity, plan), scores.shape
    if plan.block_size > 1:
        mask = jnp.repeat(mask, plan.block_size, axis=1)[:, :neurons]
    return mask if len(mask) == tokens else jnp.repeat(mask, plan.group or tokens, axis=0)[:tokens]


def check_scores(scores: jax.Array) -> None:
    """Refuse NaN scores, unless they are traced: those count as the largest, and exceed no threshold.

    Args:
      scores: of any shape.

    Raises:
      ValueError: there are some.

    Example:
      >>> check_scores(jnp.array([0.0, jnp.nan]))
      Traceback (most recent call last):
      ValueError: the scores hold NaN; check the inputs and the predictor's matrices
    """
    if not isinstance(scores, jax.core.Tracer) and np.isnan(np.asarray(scores)).any():
        raise ValueError("the scores hold NaN; check the inputs and the predictor's matrices")


def check_strictly(scores: jax.Array, sparsity: SparsityConfig, plan: FFNPlan) -> None:
    """Refuse NaN scores and tokens that choose no neuron.

    Args:
      scores: (n, f), not traced.
      sparsity: how many, or from which score on.
      plan: of the choice.

    Raises:
      ValueError: names the first such token, or the scores are traced.
    """
    if isinstance(scores, jax.core.Tracer):
        raise ValueError("strict needs scores with values; call it outside of jit, or without strict")
    check_scores(scores)
    empty = ~np.asarray(chosen(scores, sparsity, plan)).any(axis=-1)
    if empty.any():
        raise ValueError(
            f"no active neurons for token {int(np.argmax(empty))}: no score exceeds the threshold "
            f"{sparsity.threshold}"
        )


def _in_blocks(scores: jax.Array, plan: FFNPlan, fill: float) -> jax.Array:
    """(groups, group, blocks, block_size) of (n, f)."""
    tokens, neurons = scores.shape
    size, groups, blocks = plan.group or tokens, plan.groups(tokens), plan.blocks(neurons)
    padding = ((0, groups * size - tokens), (0, blocks * plan.block_size - neurons))
    padded = jnp.pad(scores, padding, constant_values=fill)
    return padded.reshape(groups, size, blocks, plan.block_size)
