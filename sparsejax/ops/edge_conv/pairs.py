"""The op over pairs: sums over the slots of a node, and a backward pass that gathers where others scatter.

Filters are equal in both directions, so what a node sends back along its edges is what it would receive if
its neighbours' cotangents were features: the transpose of a sum over neighbours is such a sum.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.edge_conv.filters import RadialFilter, evaluate
from sparsejax.ops.edge_conv.keep import kept
from sparsejax.ops.edge_conv.layout import Edges, PairLayout, ends, zeros_of


def edge_conv(
    scalars: Array,
    vectors: Array | None,
    edges: Edges,
    radial_filter: RadialFilter,
    layout: PairLayout,
) -> tuple[Array, Array]:
    """See `sparsejax.ops.edge_conv.edge_conv`; edges are pairs (p,)."""
    parts = evaluate(radial_filter, edges.distances, edges.mask & layout.real)
    witness = edges.distances
    of_vectors = directed_sum(edges.directions, parts[-1], layout, witness)
    if vectors is not None:
        of_vectors = of_vectors + weighted_sum(vectors, parts[1], layout, witness)
    return weighted_sum(scalars, parts[0], layout, witness), of_vectors


@jax.custom_vjp
def weighted_sum(features: Array, weights: Array, layout: PairLayout, witness: Array) -> Array:
    """Sum over the neighbours of their features times the weight of the pair.

    Args:
      features: (n, *s, c).
      weights: (p, c), 0 for pairs that are not there.
      layout: the pairs.
      witness: see `kept`.

    Returns:
      (n, *s, c).
    """
    return kept(_slot_sum, (features, weights, layout), witness)


def _slot_sum(operands: tuple[Array, Array, PairLayout]) -> Array:
    features, weights, layout = operands
    of_slots = weights[layout.of_slot]
    shape = *layout.of_slot.shape, *(1,) * (features.ndim - 2), weights.shape[-1]
    return (features[layout.senders] * of_slots.reshape(shape)).sum(1)


def _weighted_forward(*operands: Any) -> tuple[Array, Any]:
    return weighted_sum(*operands), operands


def _weighted_backward(operands: Any, cotangent: Array) -> tuple[Array, Array, Any, Array]:
    features, weights, layout, witness = operands
    back = weighted_sum(cotangent, weights, layout, witness)
    of_weights = kept(weight_products, (features, cotangent, layout), witness)
    return back, of_weights, zeros_of(layout), jnp.zeros_like(witness)


def weight_products(operands: tuple[Array, Array, PairLayout]) -> Array:
    """Cotangents (p, c) of the weights: each end's feature times the other's cotangent."""
    features, cotangent, layout = operands
    sent, received = ends(features, layout), ends(cotangent, layout)
    products = received[0] * sent[1] + received[1] * sent[0]
    return products.sum(tuple(range(1, features.ndim - 1)))


weighted_sum.defvjp(_weighted_forward, _weighted_backward)


@jax.custom_vjp
def directed_sum(directions: Array, weights: Array, layout: PairLayout, witness: Array) -> Array:
    """Sum over the neighbours of the direction to them times the weight of the pair.

    Args:
      directions: (p, 3) from the first node of a pair to the second.
      weights: (p, c), 0 for pairs that are not there.
      layout: the pairs.
      witness: see `kept`.

    Returns:
      (n, 3, c).
    """
    return kept(_directed_slot_sum, (directions, weights, layout), witness)


def _directed_slot_sum(operands: tuple[Array, Array, PairLayout]) -> Array:
    directions, weights, layout = operands
    sign = jnp.where(layout.leads, 1, -1)[..., None].astype(directions.dtype)
    return jnp.einsum("nmx,nmc->nxc", directions[layout.of_slot] * sign, weights[layout.of_slot])


def _directed_forward(*operands: Any) -> tuple[Array, Any]:
    return directed_sum(*operands), operands


def _directed_backward(operands: Any, cotangent: Array) -> tuple[Array, Array, Any, Array]:
    directions, weights, layout, witness = operands
    of_both = kept(directed_products, (directions, weights, cotangent, layout), witness)
    return *of_both, zeros_of(layout), jnp.zeros_like(witness)


def directed_products(operands: tuple[Array, Array, Array, PairLayout]) -> tuple[Array, Array]:
    """Cotangents (p, 3) of the directions and (p, c) of the weights."""
    directions, weights, cotangent, layout = operands
    first, second = ends(cotangent, layout)
    apart = first - second
    return jnp.einsum("pxc,pc->px", apart, weights), jnp.einsum("px,pxc->pc", directions, apart)


directed_sum.defvjp(_directed_forward, _directed_backward)
