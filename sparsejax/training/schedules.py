"""Learning rates by step, those of torch to the last digit where a name says so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


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


def _check(warmup: int, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, not {steps}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"the warm-up must be between 0 and the {steps} steps of the run, not {warmup}")
