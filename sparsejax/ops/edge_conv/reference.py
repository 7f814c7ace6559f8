"""The op in plain steps: gather, filter, segment sum; differentiated by JAX alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from sparsejax.ops.edge_conv.filters import RadialFilter
from sparsejax.ops.edge_conv.layout import EdgeLayout, Edges, PairLayout


def edge_conv(
    scalars: Array,
    vectors: Array | None,
    edges: Edges,
    radial_filter: RadialFilter,
    layout: EdgeLayout,
) -> tuple[Array, Array]:
    """See `sparsejax.ops.edge_conv.edge_conv`; edges are flat."""
    parts = [jnp.where(edges.mask[:, None], part, 0) for part in radial_filter.values(edges.distances)]
    of_scalars = scalars[layout.senders] * parts[0]
    of_vectors = edges.directions[:, :, None] * parts[-1][:, None]
    if vectors is not None:
        of_vectors = of_vectors + vectors[layout.senders] * parts[1][:, None]
    return _summed(of_scalars, scalars, layout), _summed(of_vectors, scalars, layout)


def as_edges(edges: Edges, layout: PairLayout) -> tuple[Edges, EdgeLayout]:
    """Pairs as directed edges, both ways."""
    senders = jnp.concatenate([layout.second, layout.first])
    receivers = jnp.concatenate([layout.first, layout.second])
    both = (jnp.concatenate([part, part]) for part in (edges.distances, edges.mask & layout.real))
    distances, mask = both
    directions = jnp.concatenate([edges.directions, -edges.directions])
    return Edges(distances, directions, mask), EdgeLayout(senders, receivers)


def _summed(messages: Array, like: Array, layout: EdgeLayout) -> Array:
    nodes = like.shape[0]  # in an export not an integer, but a name
    return jax.ops.segment_sum(messages, layout.receivers, nodes, indices_are_sorted=layout.sorted_receivers)
