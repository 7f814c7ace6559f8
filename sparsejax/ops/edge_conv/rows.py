"""The op over rows of neighbours: sums over slots, and a backward pass that gathers where others scatter.

Filters are equal in both directions of an edge, so what a node sends back along its edges is what it would
receive if its neighbours' cotangents were features: the transpose of a sum over neighbours is such a sum.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.edge_conv.filters import MLPFilter, RadialFilter, evaluate
from sparsejax.ops.edge_conv.layout import Edges, RowLayout, float0s, of_senders, pairs_of


def edge_conv(
    scalars: Array,
    vectors: Array | None,
    edges: Edges,
    radial_filter: RadialFilter,
    rows: RowLayout,
) -> tuple[Array, Array]:
    """See `sparsejax.ops.edge_conv.edge_conv`.

    A perceptron is computed once per pair; reading a table is cheaper than spreading it from pairs.
    """
    pairs = pairs_of(rows) if isinstance(radial_filter, MLPFilter) else None
    mask = edges.mask[..., None]
    parts = [jnp.where(mask, part, 0) for part in evaluate(radial_filter, edges.distances, pairs)]
    of_vectors = jnp.einsum("nmx,nmc->nxc", edges.directions, parts[-1])
    if vectors is not None:
        of_vectors = of_vectors + weighted_sum(vectors, parts[1], rows)
    return weighted_sum(scalars, parts[0], rows), of_vectors


@jax.custom_vjp
def weighted_sum(features: Array, weights: Array, rows: RowLayout) -> Array:
    """Sum over the neighbours of their features times the weight of the slot.

    Args:
      features: (n, *s, c).
      weights: (n, m, c), equal in both directions of an edge, 0 in empty slots.
      rows: the neighbours.

    Returns:
      (n, *s, c).
    """
    return (of_senders(features, rows) * _like(weights, features)).sum(1)


def _forward(features: Array, weights: Array, rows: RowLayout) -> tuple[Array, Any]:
    return weighted_sum(features, weights, rows), (features, weights, rows)


def _backward(kept: Any, cotangent: Array) -> tuple[Array, Array, RowLayout]:
    features, weights, rows = kept
    products = of_senders(features, rows) * cotangent[:, None]
    of_weights = products.sum(tuple(range(2, features.ndim)))
    return weighted_sum(cotangent, weights, rows), of_weights, float0s(rows)


weighted_sum.defvjp(_forward, _backward)


def _like(weights: Array, features: Array) -> Array:
    """Weights (n, m, c) with the axes of (n, m, *s, c)."""
    return weights.reshape(*weights.shape[:2], *(1,) * (features.ndim - 2), weights.shape[-1])
