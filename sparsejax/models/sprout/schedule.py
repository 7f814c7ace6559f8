"""How many neurons a token uses at each step of a training: dense at first, then fewer and fewer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import jax
import jax.numpy as jnp

TopKSchedule = Callable[[int], int | None]
"""Step, counted from 0 -> ``top_k``; None is all neurons."""

MOST_BUCKETS = 12


def sparsity_schedule(
    d_ff: int, initial_top_k: int | None, final_top_k: int, sparsity_warmup_steps: int
) -> TopKSchedule:
    """The published warm-up, number for number: linear, rounded towards zero.

    Args:
      d_ff: neurons.
      initial_top_k: at step 0; None is all.
      final_top_k: from step ``sparsity_warmup_steps`` on; more than at first is allowed.
      sparsity_warmup_steps: steps until then.

    Returns:
      step -> ``top_k``, None where that is ``d_ff`` or more.

    Raises:
      ValueError: a number is negative.

    Example:
      >>> top_k = sparsity_schedule(2048, None, 512, 10000)
      >>> [top_k(step) for step in (0, 1, 1000, 5000, 10000)]
      [None, 2047, 1894, 1280, 512]

    Source: specs/sprout.md section 4.
    """
    start = d_ff if initial_top_k is None else initial_top_k
    if min(d_ff, start, final_top_k, sparsity_warmup_steps) < 0:
        raise ValueError("d_ff, top_k and the warm-up must be at least 0")

    def top_k(step: int) -> int | None:
        if step >= sparsity_warmup_steps:
            found = final_top_k
        else:
            found = int(start - (step / sparsity_warmup_steps) * (start - final_top_k))
        return None if found >= d_ff else found

    return top_k


def bucketed_sparsity_schedule(
    d_ff: int,
    initial_top_k: int | None,
    final_top_k: int,
    sparsity_warmup_steps: int,
    *,
    buckets: int = MOST_BUCKETS,
) -> TopKSchedule:
    """The published warm-up rounded up to a few values, for steps that are compiled once for each of them.

    Args:
      d_ff: neurons.
      initial_top_k: see `sparsity_schedule`, as the rest.
      final_top_k: reached exactly.
      sparsity_warmup_steps: steps until then.
      buckets: at most so many values, None among them.

    Raises:
      ValueError: a number is negative, or there is no bucket.

    Example:
      >>> top_k = bucketed_sparsity_schedule(2048, None, 512, 10000, buckets=4)
      >>> [top_k(step) for step in (0, 1, 5000, 9000, 10000)]
      [None, None, 1536, 1024, 512]
    """
    exact = sparsity_schedule(d_ff, initial_top_k, final_top_k, sparsity_warmup_steps)
    if buckets < 1:
        raise ValueError(f"there must be at least 1 bucket, not {buckets}")
    ends = (min(d_ff, d_ff if initial_top_k is None else initial_top_k), min(d_ff, final_top_k))
    low, high = min(ends), max(ends)
    # Counted down from the largest, so that one bucket is that one; the final value is one of several.
    values = sorted({high - (high - low) * n // max(1, buckets - 1) for n in range(buckets)})

    def top_k(step: int) -> int | None:
        found = exact(step)
        rounded = d_ff if found is None else values[bisect_left(values, found)]
        return None if rounded >= d_ff else rounded

    return top_k


def traced_top_k(schedule: TopKSchedule, d_ff: int) -> Callable[[int], jax.Array]:
    """A schedule whose values are arrays, so that a jitted step which takes them is compiled once.

    Args:
      schedule: such as `sparsity_schedule` makes it.
      d_ff: neurons; stands for None.

    Returns:
      step -> () int32.

    Example:
      >>> top_k = traced_top_k(sparsity_schedule(64, None, 16, 10), 64)
      >>> int(top_k(0)), int(top_k(10))
      (64, 16)
    """

    def top_k(step: int) -> jax.Array:
        found = schedule(step)
        return jnp.asarray(d_ff if found is None else found, jnp.int32)

    return top_k
