"""How parameters start: as published, or so that a new network remembers from the first step on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import initializers

from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig

Initializer = Callable[..., jax.Array]

RING = (0.9, 0.999)
"""Magnitudes of eigenvalues at the start of ``init="ring"``: half-lives of 7 to 693 tokens."""

COUPLING_SCALE = 0.01
"""Of the matrix beside the identity, in a scaled coupling."""

_PUBLISHED_SCALE = 0.02
_CLOSED_GATE = -2.0
_CLOSED_MEMORY = -3.0


def kernel_init(config: TemporalEigenstateConfig) -> Initializer:
    """Of every matrix: N(0, 0.02) as published, or variance 1 / inputs."""
    return initializers.normal(_PUBLISHED_SCALE) if config.init == "legacy" else initializers.lecun_normal()


def cell_kernel_init(config: TemporalEigenstateConfig) -> Initializer:
    """Of a stack (c, in, out) of matrices, each as `kernel_init` has it."""
    if config.init == "legacy":
        return initializers.normal(_PUBLISHED_SCALE)
    return initializers.lecun_normal(batch_axis=(0,))


def token_init(config: TemporalEigenstateConfig) -> Initializer:
    """Of the token table: N(0, 0.02) as published, or rows of length 1.

    Beside matrices of variance 1 / inputs, a table of 0.02 drowns in what the first layer adds to it.
    """
    return initializers.normal(_PUBLISHED_SCALE if config.init == "legacy" else config.dim**-0.5)


def position_init() -> Initializer:
    """Of learned positions."""
    return initializers.normal(_PUBLISHED_SCALE)


def decay_init(config: TemporalEigenstateConfig, layer: EigenstateLayer | None, number: int) -> Initializer:
    """Of the logits whose sigmoid, times the clip of ``paper`` and ``seed``, is the magnitude.

    Args:
      config: of the network.
      layer: of the modern variant; None for the published blocks.
      number: of the layer; some published families start deeper layers slower.

    Source: specs/ten.md sections 2 and 3 (legacy); Orvieto et al. 2023, lemma 3.2 (ring).
    """
    if config.init == "ring":
        return _ring(1.0 if config.variant == "modern" else config.eigenvalue_clip)
    if layer is None or layer.projection == "eigenvectors":
        return _uniform(-3.0, 0.0)
    if layer.memory or layer.short_conv:
        centre = -2 + 1.5 * number / max(1, config.n_layers - 1)
        return _uniform(centre - 1, centre + 0.5)
    return _uniform(-3.0, -0.1)


def frequency_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Angles per step, evenly spread over the circle along the last axis."""
    del key
    angles = jnp.linspace(0.0, 2 * math.pi * (1 - 1 / shape[-1]), shape[-1], dtype=dtype)
    return jnp.broadcast_to(angles, shape)


def coupling_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Nearly the identity, block by block: (h, k, k)."""
    noise = 0.01 * jax.random.normal(key, shape, dtype) / math.sqrt(shape[-1])
    return jnp.eye(shape[-1], dtype=dtype) + noise


def gate_bias_init(config: TemporalEigenstateConfig, layer: EigenstateLayer) -> Initializer:
    """Of the output gate: nearly closed, except where a published family lost that."""
    lost = config.init == "legacy" and (layer.memory or layer.short_conv > 0 or layer.band_gates > 0)
    return initializers.zeros if lost else initializers.constant(_CLOSED_GATE)


def memory_kernel_init(config: TemporalEigenstateConfig) -> Initializer:
    """Of what reads the layer below: N(0, 0.02) as published, or the identity that was meant."""
    return initializers.normal(_PUBLISHED_SCALE) if config.init == "legacy" else _identity


def memory_gate_init() -> Initializer:
    """Of the scalar gate of the layer below."""
    return initializers.constant(_CLOSED_MEMORY)


def select_kernel_init(config: TemporalEigenstateConfig) -> Initializer:
    """Of what makes eigenvalues depend on tokens: N(0, 0.02) as published, or the zeros that were meant."""
    return initializers.normal(_PUBLISHED_SCALE) if config.init == "legacy" else initializers.zeros


def convolution_bias_init(taps: int) -> Initializer:
    """Of the bias of a convolution of so many taps, as PyTorch starts it."""
    return _uniform(-(taps**-0.5), taps**-0.5)


def convolution_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Of taps (taps, c), as PyTorch starts a depthwise convolution."""
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def resonance_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Of the matrices that the cells of ``paper`` and ``seed`` feed back: N(0, 1)."""
    return jax.random.normal(key, shape, dtype)


def eigenvector_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Of real or imaginary parts (k, d)."""
    return _PUBLISHED_SCALE * jax.random.normal(key, shape, dtype) / math.sqrt(shape[-1])


def mixing_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Of the matrix of a scaled coupling (k, k)."""
    return jax.random.normal(key, shape, dtype) / math.sqrt(shape[-1])


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    del key
    return jnp.eye(shape[0], shape[1], dtype=dtype)


def _uniform(low: float, high: float) -> Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, low, high)

    return init


def _ring(clip: float) -> Initializer:
    """Logits of magnitudes spread evenly over the area of the ring, as far as the clip lets them."""
    low, high = RING[0], min(RING[1], 0.9999 * clip)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        area = jax.random.uniform(key, shape, dtype, low**2, high**2)
        magnitude = jnp.sqrt(area) / clip
        return jnp.log(magnitude) - jnp.log1p(-magnitude)

    return init
