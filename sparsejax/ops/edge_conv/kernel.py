"""What the kernels of all targets share: a sum over the slots of a node, what it reads, and its gradient.

The gradient to features is the same sum over the neighbours' cotangents. That to pairs is left to XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.edge_conv import pairs as on_pairs
from sparsejax.ops.edge_conv.filters import MLPFilter, Parts, RadialFilter, TableFilter, evaluate
from sparsejax.ops.edge_conv.layout import Edges, PairLayout, zeros_of

Weights = Parts | TableFilter
"""One (p, c) array per part, ready to be read, or a table that the kernel looks up itself."""

Sums = tuple[Array, Array | None]
"""(n, c) and (n, 3, c); None in place of the latter where neither vectors nor directions go in."""


class Slots(NamedTuple):
    """What a kernel needs to know of each slot of each node.

    Attributes:
      neighbours: (n, m) int32.
      place: (n, m) where the weights are: int32 pairs, or distances in a table. Negative: nothing is there.
      toward: x, y and z (n, m) of the direction to the neighbour, or None.
    """

    neighbours: Array
    place: Array
    toward: tuple[Array, ...] | None

    def padded(self, nodes: int, slots: int) -> Slots:
        """With so many nodes, and so many slots per node, more; all of them empty."""
        widths = ((0, nodes), (0, slots))
        more: Slots = jax.tree.map(lambda array: jnp.pad(array, widths), self)
        return more._replace(place=jnp.pad(self.place, widths, constant_values=-1))


Launch = Callable[[Array, Array | None, Weights, Slots], Sums]
"""Sums over slots, from scalars, vectors or None, the weights of those and of directions, and the slots."""


class _Pairs(NamedTuple):
    weights: Weights
    directions: Array | None
    distances: Array
    mask: Array

    def undirected(self) -> _Pairs:
        if self.directions is None:
            return self
        if isinstance(self.weights, tuple):
            return self._replace(weights=self.weights[:-1], directions=None)
        return self._replace(
            weights=TableFilter(self.weights.coefficients[:-1], self.weights.cutoff), directions=None
        )


def with_kernel(launch: Launch) -> Callable[..., tuple[Array, Array]]:
    """`pairs.edge_conv` by a kernel, differentiable as often as that form."""
    compiled = jax.jit(launch)  # traced and lowered once for all steps of a size

    def edge_conv(
        scalars: Array, vectors: Array | None, edges: Edges, radial_filter: RadialFilter, layout: PairLayout
    ) -> tuple[Array, Array]:
        mask = edges.mask & layout.real
        weights: Weights
        if isinstance(radial_filter, MLPFilter):
            weights = evaluate(radial_filter, edges.distances, mask)
        else:
            weights = radial_filter
        pairs = _Pairs(weights, edges.directions, edges.distances, mask)
        sums: tuple[Array, Array] = _sums(compiled, (scalars, vectors), pairs, layout)
        return sums

    return edge_conv


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(launch: Launch, features: Sums, pairs: _Pairs, layout: PairLayout) -> Any:
    return launch(*features, pairs.weights, _slots(pairs, layout))


def _slots(pairs: _Pairs, layout: PairLayout) -> Slots:
    pair = layout.of_slot.astype(jnp.int32)
    # A distance that is not a number is never left out: sums have to tell.
    filled = (pairs.mask | (layout.real & jnp.isnan(pairs.distances)))[pair]
    place = pair if isinstance(pairs.weights, tuple) else pairs.distances[pair]
    toward = None
    if pairs.directions is not None:
        ahead = (pairs.directions[:, axis][pair] for axis in range(3))
        signed = (jnp.where(layout.leads, along, -along) for along in ahead)
        toward = tuple(jnp.where(filled, along, 0) for along in signed)
    return Slots(layout.senders.astype(jnp.int32), jnp.where(filled, place, -1), toward)


def _forward(launch: Launch, features: Sums, pairs: _Pairs, layout: PairLayout) -> tuple[Any, Any]:
    return _sums(launch, features, pairs, layout), (features, pairs, layout)


def _backward(launch: Launch, kept: Any, cotangents: Any) -> tuple[Sums, _Pairs, Any]:
    features, pairs, layout = kept
    arriving = cotangents[0], None if features[1] is None else cotangents[1]
    of_features = _sums(launch, arriving, pairs.undirected(), layout)
    return of_features, _of_pairs(features, cotangents, pairs, layout), zeros_of(layout)


def _of_pairs(features: Any, cotangents: Any, pairs: _Pairs, layout: PairLayout) -> _Pairs:
    """Cotangents of what belongs to pairs."""
    (scalars, vectors), (of_scalars, of_vectors) = features, cotangents
    parts, pull_back = jax.vjp(partial(_evaluated, pairs.mask), pairs.weights, pairs.distances)
    of_parts = [on_pairs.weight_products((scalars, of_scalars, layout))]
    if vectors is not None:
        of_parts.append(on_pairs.weight_products((vectors, of_vectors, layout)))
    of_directions = None
    if pairs.directions is not None:
        operands = (pairs.directions, parts[-1], of_vectors, layout)
        of_directions, of_last = on_pairs.directed_products(operands)
        of_parts.append(of_last)
    of_weights, of_distances = pull_back(tuple(of_parts))
    return _Pairs(of_weights, of_directions, of_distances, zeros_of(pairs.mask))


_sums.defvjp(_forward, _backward)


def _evaluated(mask: Array, weights: Weights, distances: Array) -> Parts:
    return weights if isinstance(weights, tuple) else evaluate(weights, distances, mask)


def in_table(distances: Array, intervals: int, cutoff: float) -> tuple[Array, Array]:
    """The interval of a table that a distance lies in, and its place there; as in `TableFilter`.

    Example:
      >>> [part.tolist() for part in in_table(jnp.array([2.5, 9.0]), 4, 8.0)]
      [[1, 3], [0.25, 1.5]]
    """
    scaled = distances * (intervals / cutoff)
    number = jnp.clip(scaled.astype(jnp.int32), 0, intervals - 1)
    return number, scaled - number.astype(scaled.dtype)


def cubic(powers: Iterable[Array], place: Array) -> Array:
    """The polynomial with coefficients of the powers 0 to 3."""
    a, b, c, d = powers
    return a + place * (b + place * (c + place * d))
