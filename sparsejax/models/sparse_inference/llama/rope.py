"""Rotary positions: frequencies with the published ways to stretch them, and the rotation itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

RopeScaling = Literal["none", "linear", "yarn"]


@dataclass(frozen=True)
class RopeConfig:
    """How positions turn queries and keys.

    Attributes:
      dimension: leading channels of a head that are turned; even.
      base: of the frequencies ``base ** (-2 i / dimension)``.
      interleaved: channels 2i and 2i + 1 are a pair, as in files of the architecture "llama"; else channels
        i and i + dimension / 2.
      scaling: "linear" divides all positions by ``factor``; "yarn" those of slow pairs alone.
      factor: by which a context is longer than the ``original_context``.
      original_context: positions before stretching, of "yarn".
      beta_fast: turns over the original context above which "yarn" leaves a pair alone.
      beta_slow: turns below which it divides fully.
      attention_factor: "yarn" multiplies queries and keys by this and by 1 + ln(factor) / 10.

    Example:
      >>> RopeConfig(dimension=64).base
      10000.0
    """

    dimension: int
    base: float = 10000.0
    interleaved: bool = True
    scaling: RopeScaling = "none"
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    def __post_init__(self):
        """Refuse what turns nothing."""
        if self.dimension < 2 or self.dimension % 2:
            raise ValueError(
                f"RoPE turns pairs of channels: dimension {self.dimension} is not an even number"
            )
        if self.scaling not in get_args(RopeScaling):
            raise ValueError(f"RoPE scaling {self.scaling!r} is not one of {get_args(RopeScaling)}")
        for name in ("base", "factor", "beta_fast", "beta_slow", "attention_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"RoPE {name} must be above 0, not {value}")
        if self.scaling == "yarn" and self.original_context < 1:
            raise ValueError("RoPE scaling 'yarn' needs original_context, the positions before stretching")

    @property
    def amplitude(self) -> float:
        """What queries and keys are multiplied by while they are turned."""
        if self.scaling != "yarn":
            return 1.0
        return self.attention_factor * (1 + 0.1 * math.log(max(self.factor, 1.0)))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RopeConfig:
        """From its fields as plain values."""
        return cls(**document)


def frequencies(config: RopeConfig) -> np.ndarray:
    """Angle per position of each pair of channels.

    Args:
      config: of the rotation.

    Returns:
      (dimension / 2,) float64 radians.

    Example:
      >>> frequencies(RopeConfig(dimension=4, scaling="linear", factor=2.0)).tolist()
      [0.5, 0.005]

    Source: Su et al. 2021, RoFormer; Peng et al. 2023, YaRN; specs/sparse_inference.md section 13.
    """
    exponents = np.arange(0, config.dimension, 2, dtype=np.float64) / config.dimension
    plain = config.base**-exponents
    if config.scaling == "linear":
        return plain / config.factor
    if config.scaling == "yarn":
        kept = _yarn_kept(config)
        return plain * kept + plain / config.factor * (1 - kept)
    return plain


def rotation(
    positions: jax.Array, config: RopeConfig, factors: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of all pairs at the given positions.

    Args:
      positions: (*b, t) integers.
      config: of the rotation.
      factors: (dimension / 2,) divisors of the frequencies, as ``rope_freqs.weight`` in files of Llama 3.1
        and later; None is all ones.

    Returns:
      two arrays (*b, t, dimension / 2), float32 or, with x64, float64.
    """
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
    steps = jnp.asarray(frequencies(config), dtype)
    if factors is not None:
        steps = steps / factors.astype(dtype)
    angles = positions[..., None].astype(dtype) * steps
    return jnp.cos(angles) * config.amplitude, jnp.sin(angles) * config.amplitude


def rotate(heads: jax.Array, turn: tuple[jax.Array, jax.Array], *, interleaved: bool) -> jax.Array:
    """Heads with their leading channels turned, pair by pair; the others stay.

    Args:
      heads: (b, t, h, c).
      turn: cosines and sines (b, t, p) of `rotation` for p pairs; 2 p <= c.
      interleaved: channels 2i and 2i + 1 are a pair; else channels i and i + p.

    Returns:
      (b, t, h, c) in the dtype of ``heads``.

    Example:
      >>> quarter = jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1))
      >>> rotate(jnp.array([[[[1.0, 0.0, 7.0]]]]), quarter, interleaved=True).tolist()
      [[[[0.0, 1.0, 7.0]]]]
    """
    cos, sin = (part[:, :, None] for part in turn)
    pairs = cos.shape[-1]
    turned, rest = heads[..., : 2 * pairs], heads[..., 2 * pairs :]
    if interleaved:
        split = turned.reshape(*turned.shape[:-1], pairs, 2)
        first, second = split[..., 0], split[..., 1]
    else:
        first, second = turned[..., :pairs], turned[..., pairs:]
    new = (first * cos - second * sin, first * sin + second * cos)
    joined = jnp.stack(new, axis=-1).reshape(turned.shape) if interleaved else jnp.concatenate(new, axis=-1)
    return jnp.concatenate((joined.astype(heads.dtype), rest), axis=-1)


def _yarn_kept(config: RopeConfig) -> np.ndarray:
    """(dimension / 2,) part of each pair's frequency that stays as it is."""

    def pair_with(turns: float) -> float:
        wave = config.original_context / (turns * 2 * math.pi)
        return config.dimension * math.log(wave) / (2 * math.log(config.base))

    low = max(math.floor(pair_with(config.beta_fast)), 0)
    high = min(math.ceil(pair_with(config.beta_slow)), config.dimension - 1)
    ramp = (np.arange(config.dimension // 2) - low) / max(high - low, 0.001)
    return 1 - np.clip(ramp, 0, 1)
