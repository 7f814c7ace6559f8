"""Learning rates by step, those of torch to the last digit where a name says so."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

OneCycle = Callable[[jax.typing.ArrayLike], tuple[jax.Array, jax.Array]]
"""Learning rate and decay of Adam's first moment by step."""

_LONGEST_WARMUP = 2000


def usual_warmup(steps: int) -> int:
    """Steps of warm-up of a language model's run, as published: a tenth of all, at most 2000.

    Example:
      >>> usual_warmup(500), usual_warmup(50_000)
      (50, 2000)
    """
    return min(_LONGEST_WARMUP, steps // 10)


def warmup_cosine(peak: float, *, warmup: int, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak, then half a cosine to 0; 0 afterwards.

    Step 0 has rate 0 unless there is no warm-up, as with torch's ``LambdaLR``.

    Args:
      peak: rate at step ``warmup``.
      warmup: steps.
      steps: in all.

    Returns:
      schedule: step, counted from 0, -> rate.

    Raises:
      ValueError: the warm-up is negative or longer than the run.

    Example:
      >>> rate = warmup_cosine(1.0, warmup=4, steps=8)
      >>> [round(float(rate(step)), 3) for step in (0, 1, 4, 6, 8)]
      [0.0, 0.25, 1.0, 0.5, 0.0]
    """
    _check(warmup, steps)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(1, steps - warmup), 0, 1)
        return peak * jnp.where(step < warmup, step / max(1, warmup), (1 + jnp.cos(jnp.pi * progress)) / 2)

    return rate


def warmup_constant(peak: float, *, warmup: int, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak, then constant.

    Args:
      peak: rate from step ``warmup`` on.
      warmup: steps.
      steps: in all.

    Raises:
      ValueError: the warm-up is negative or longer than the run.

    Example:
      >>> rate = warmup_constant(1.0, warmup=4, steps=8)
      >>> [float(rate(step)) for step in (0, 1, 4, 8)]
      [0.0, 0.25, 1.0, 1.0]
    """
    _check(warmup, steps)
    return optax.linear_schedule(0.0 if warmup else peak, peak, max(1, warmup))


def cosine_annealing(peak: float, *, steps: int, minimum: float = 0.0) -> optax.Schedule:
    """Torch's ``CosineAnnealingLR``: half a cosine from the peak at step 0, and up again after ``steps``.

    Args:
      peak: rate at step 0.
      steps: until the minimum, torch's ``T_max``.
      minimum: torch's ``eta_min``.

    Raises:
      ValueError: ``steps`` is below 1.

    Example:
      >>> rate = cosine_annealing(1.0, steps=4)
      >>> [round(float(rate(step)), 3) for step in (0, 2, 4, 6)]
      [1.0, 0.5, 0.0, 0.5]
    """
    _check(0, steps)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        return minimum + (peak - minimum) * (1 + jnp.cos(jnp.pi * step / steps)) / 2

    return rate


def onecycle(
    max_lr: float,
    *,
    warmup: int,
    steps: int,
    betas: tuple[float, float] = (0.85, 0.95),
    start_factor: float = 25.0,
    end_factor: float = 1e4,
) -> OneCycle:
    """Torch's ``OneCycleLR`` with cosines and cycled momentum: the rate goes up and down, beta1 down and up.

    The rate rises from ``max_lr / start_factor`` at step 0 to ``max_lr`` at step ``warmup - 1`` and falls to
    ``max_lr / start_factor / end_factor`` at step ``steps - 1``; the curve goes on beyond, as torch's does
    for one step.

    Args:
      max_lr: highest rate.
      warmup: steps until then, torch's ``pct_start * total_steps``; with one step the rate starts there.
      steps: in all.
      betas: lowest and highest decay of Adam's first moment.
      start_factor: torch's ``div_factor``.
      end_factor: torch's ``final_div_factor``.

    Returns:
      ``onecycle(step) -> (lr, beta1)``, the step counted from 0, maybe traced.

    Raises:
      ValueError: the warm-up is negative or longer than the run.

    Example:
      >>> at = onecycle(1.0, warmup=4, steps=8)
      >>> [tuple(round(float(value), 3) for value in at(step)) for step in (0, 3, 5, 7)]
      [(0.04, 0.95), (1.0, 0.85), (0.5, 0.9), (0.0, 0.95)]

    Source: specs/sprout.md section 4.
    """
    _check(warmup, steps)
    start, end = max_lr / start_factor, max_lr / start_factor / end_factor
    low, high = betas
    top, last = warmup - 1, steps - 1

    def at(step: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        step = jnp.asarray(step, jnp.float32)
        # Squared sines instead of 1 + cos: small rates keep all their digits.
        up = jnp.sin(jnp.pi / 2 * step / top) ** 2 if top > 0 else jnp.ones_like(step)
        down = jnp.sin(jnp.pi / 2 * (last - step) / max(1, last - top)) ** 2
        rising = step <= top
        rate = jnp.where(rising, start + (max_lr - start) * up, end + (max_lr - end) * down)
        return rate, jnp.where(rising, high + (low - high) * up, high + (low - high) * down)

    return at


def epoch_cosine(
    peak: float,
    *,
    warmup: int,
    steps_per_epoch: int,
    epochs: int,
    start: float = 1e-7,
    minimum: float = 1e-7,
    period: int | None = None,
) -> np.ndarray:
    """Rates of a warm-up by step that a cosine by epoch follows, both as torch computes them.

    The warm-up is torch's ``LambdaLR``, stepped after each optimiser step until it has reached the peak. The
    cosine is torch's ``CosineAnnealingLR`` in its recursive form, which scales the rate there is; it is
    stepped after each epoch that ends with the warm-up over. Epochs spent on the warm-up are therefore
    missing from its end: the last rates lie above the minimum.

    Args:
      peak: rate after the warm-up.
      warmup: optimiser steps until then.
      steps_per_epoch: optimiser steps.
      epochs: in all.
      start: rate of the first step, if there is a warm-up.
      minimum: torch's ``eta_min``.
      period: epochs from the peak to the minimum, torch's ``T_max``; all epochs if not given.

    Returns:
      (steps_per_epoch * epochs,) float64, computed on the host; see `tabulated`.

    Raises:
      ValueError: a count is below 1, the peak is not positive, or the warm-up is negative.

    Example:
      >>> epoch_cosine(1.0, warmup=2, steps_per_epoch=2, epochs=3, start=0.0, minimum=0.0).round(3).tolist()
      [0.0, 0.5, 0.75, 0.75, 0.25, 0.25]

    Source: specs/force_field.md section 4.
    """
    period = epochs if period is None else period
    if min(steps_per_epoch, epochs, period) < 1 or warmup < 0:
        raise ValueError(
            "steps per epoch, epochs and the period must be at least 1 and the warm-up at least 0, not "
            f"{steps_per_epoch}, {epochs}, {period} and {warmup}"
        )
    if not peak > 0:
        raise ValueError(f"the peak of the learning rate must be positive, not {peak}")
    first = start / peak if warmup else 1.0
    rates, rate, turns = np.empty(steps_per_epoch * epochs), peak * first, 0
    for step in range(len(rates)):
        rates[step] = rate
        done = step + 1
        if done <= warmup:
            rate = peak * (first + (1 - first) * done / warmup)
        if done % steps_per_epoch == 0 and done >= warmup:
            turns += 1
            rate = _annealed(rate, peak, minimum, turns, period)
    return rates


def _annealed(rate: float, peak: float, minimum: float, turns: int, period: int) -> float:
    """The next rate of torch's ``CosineAnnealingLR``."""
    if (turns - 1 - period) % (2 * period) == 0:  # it begins to rise from the minimum
        return rate + (peak - minimum) * (1 - math.cos(math.pi / period)) / 2
    scale = (1 + math.cos(math.pi * turns / period)) / (1 + math.cos(math.pi * (turns - 1) / period))
    return minimum + scale * (rate - minimum)


def tabulated(rates: np.ndarray) -> optax.Schedule:
    """The schedule of rates that are known beforehand; the last one stays.

    Args:
      rates: (steps,).

    Example:
      >>> float(tabulated(np.asarray([1.0, 0.5]))(1))
      0.5
    """
    table = np.asarray(rates)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(table)[jnp.minimum(jnp.asarray(step), len(table) - 1)]

    return rate


def _check(warmup: int, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, not {steps}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"the warm-up must be between 0 and the {steps} steps of the run, not {warmup}")
