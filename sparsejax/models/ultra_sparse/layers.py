"""The three layer kinds as pure functions: pre-activations of a batch, rows first or features first.

``rows first`` is (..., inputs) as the published nets take it. ``features first`` is (inputs, ...): every
feature is one contiguous line, which a table of a few columns reads without touching the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.models.ultra_sparse.config import Activation
from sparsejax.typing import Bias, EitherLayout, IndexTable, Kernel, LiveCounts, Mask, Scalars, SparseWeights


def live_weights(weights: SparseWeights, live: LiveCounts) -> SparseWeights:
    """Weights (h, k) with the slots beyond each neuron's live count set to zero.

    What lies beyond the count is stale by definition and may even be NaN, hence `where`.
    """
    slots = jnp.arange(weights.shape[1])
    return jnp.where(slots < live[:, None], weights, 0)


def sparse_layer(
    inputs: EitherLayout,
    indices: IndexTable,
    weights: SparseWeights,
    bias: Bias,
    *,
    features_first: bool = False,
) -> jax.Array:
    """Pre-activations ``bias_h + sum_k weights_hk * inputs[indices_hk]``.

    Args:
      inputs: (..., i), or (i, ...) if ``features_first``.
      indices: (h, k) integers below i; duplicates count twice, indices are not checked here.
      weights: (h, k).
      bias: (h,).
      features_first: the feature axis is the first one, in inputs and result.

    Returns:
      (..., h), or (h, ...).

    Source: specs/ultra_sparse.md section 4.
    """
    if features_first:
        trailing = (...,) + (None,) * (inputs.ndim - 1)
        terms = (inputs[indices[:, k]] * weights[:, k][trailing] for k in range(weights.shape[1]))
        return sum(terms) + bias[trailing]
    terms = (jnp.take(inputs, indices[:, k], axis=-1) * weights[:, k] for k in range(weights.shape[1]))
    return sum(terms) + bias


def dense_layer(
    inputs: EitherLayout, kernel: Kernel, bias: Bias, *, features_first: bool = False
) -> jax.Array:
    """Pre-activations ``inputs @ kernel + bias``.

    Args:
      inputs: (..., i), or (i, ...) if ``features_first``.
      kernel: (i, o).
      bias: (o,).
      features_first: the feature axis is the first one, in inputs and result.

    Returns:
      (..., o), or (o, ...).
    """
    precision = jax.lax.Precision.HIGHEST
    if not features_first:
        return jnp.matmul(inputs, kernel, precision=precision) + bias
    product = jnp.tensordot(kernel, inputs, axes=((0,), (0,)), precision=precision)
    return product + bias[(...,) + (None,) * (inputs.ndim - 1)]


def masked_layer(
    inputs: EitherLayout, kernel: Kernel, mask: Mask, bias: Bias, *, features_first: bool = False
) -> jax.Array:
    """`dense_layer` with the kernel's entries zeroed where ``mask`` (i, o) is False."""
    return dense_layer(inputs, jnp.where(mask, kernel, 0), bias, features_first=features_first)


def activate(pre_activations: Scalars, activation: Activation) -> Scalars:
    """The layer's nonlinearity; sign(0) is 0."""
    if activation == "linear":
        return pre_activations
    return {"tanh": jnp.tanh, "relu": jax.nn.relu, "sign": jnp.sign}[activation](pre_activations)
