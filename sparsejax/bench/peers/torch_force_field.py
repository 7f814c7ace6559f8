"""The published force field in PyTorch over a given list of edges: as published, and as fast as we can.

`published` has the published operations in the published order. `tuned` computes the same numbers with less
work: nothing that has no effect on the energy, the first filter layers of all interactions in one product,
sums over runs of sorted edges, and no scatter in the backward pass; with ``share`` also one filter for both
directions of a pair, which is this library's idea and not the original's. Both can be compiled.

Source: specs/force_field.md section 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from sparsejax.bench.peers.torch_force_field_weights import Pairs, Weights, sizes
from sparsejax.bench.peers.torch_net import PeerError

Energies = Callable[[Any], Any]
"""Edge vectors (e, 3) in A, from receiver to sender, to energies (g,) in eV."""

Call = Callable[[Any], tuple[Any, Any]]
"""Positions (n, 3) in A to energies (g,) in eV and forces (n, 3) in eV/A."""


def published(weights: Weights, pairs: Pairs, *, cutoff: float = 5.0) -> Energies:
    """The published network, operation by operation.

    Args:
      weights: of `weights_of_params` or `weights_of_state`.
      pairs: with all edges up to the cutoff.
      cutoff: A.

    Returns:
      a function that torch can differentiate twice, by weights too.
    """
    import torch

    width, layers = sizes(weights)
    senders, receivers = pairs.senders, pairs.receivers

    def energies(vectors: Any) -> Any:
        distances = torch.linalg.vector_norm(vectors, dim=1)
        directions = vectors / (distances + 1e-8)[:, None]
        radial = _radial(distances, weights, cutoff)
        scalars = weights["embedding.weight"][pairs.species]
        features = scalars.new_zeros(len(scalars), 3, width)
        for layer in range(layers):
            key = f"interactions.{layer}"
            filters = _two_layers(radial, weights, f"{key}.message.rbf_to_scalar")
            by_scalar, by_vector, by_direction = filters.split(width, dim=1)
            messages = features[senders] * by_vector[:, None] + directions[..., None] * by_direction[:, None]
            change = torch.zeros_like(scalars).index_add(0, receivers, scalars[senders] * by_scalar)
            features = features + torch.zeros_like(features).index_add(0, receivers, messages)
            scalars = scalars + change
            norms = torch.linalg.vector_norm(features, dim=1)
            gates = _two_layers(torch.cat((scalars, norms), 1), weights, f"{key}.update.update_mlp")
            update, straight, mixed = gates.split(width, dim=1)
            turned = torch.einsum("ij,njc->nic", weights[f"{key}.update.mixing_matrix"], features)
            scalars, features = scalars + update, features * straight[:, None] + turned * mixed[:, None]
        return _sum_over_graphs(_readout(scalars, weights), pairs)

    return energies


def tuned(weights: Weights, pairs: Pairs, *, cutoff: float = 5.0, share: bool = False) -> Energies:
    """The same energies with less work; first derivatives only.

    Args:
      weights: of `weights_of_params` or `weights_of_state`.
      pairs: with all edges up to the cutoff.
      cutoff: A.
      share: compute a filter once for both directions of a pair.
    """
    import torch
    from torch.nn.functional import linear, silu

    width, layers = sizes(weights)
    hidden = [_dense(weights, f"interactions.{layer}.message.rbf_to_scalar.0") for layer in range(layers)]
    joined = tuple(torch.cat(parts) for parts in zip(*hidden, strict=True))
    filters = [_dense(weights, f"interactions.{layer}.message.rbf_to_scalar.2") for layer in range(layers)]
    # No vector features reach the first interaction, and none leave the last.
    kernel, bias = (torch.cat((part[:width], part[2 * width :])) for part in filters[0])
    filters[0] = kernel, bias
    gates = [_dense(weights, f"interactions.{layer}.update.update_mlp.2") for layer in range(layers)]
    gates[-1] = gates[-1][0][:width], gates[-1][1][:width]
    gather, gather_filters, sum_edges = _sparse_operations()
    along = pairs.senders, pairs.reverse, pairs.offsets
    onto = pairs.receivers, pairs.edges, pairs.offsets

    def energies(vectors: Any) -> Any:
        distances = torch.linalg.vector_norm(vectors, dim=1)
        directions = (vectors / (distances + 1e-8)[:, None])[..., None]
        measured = distances.index_select(0, pairs.firsts) if share else distances
        inner = silu(linear(_radial(measured, weights, cutoff), *joined)).split(width, dim=1)
        scalars, features = weights["embedding.weight"].index_select(0, pairs.species), None
        for layer in range(layers):
            outer = linear(inner[layer], *filters[layer])
            if share:
                outer = gather_filters(outer, pairs.pair, pairs.firsts, pairs.reverse)
            if features is None:
                by_scalar, by_direction = outer.split(width, dim=1)
                first = scalars.index_select(0, pairs.senders) * by_scalar
                rest = directions * by_direction[:, None]
            else:
                by_scalar, by_vector, by_direction = outer.split(width, dim=1)
                sent = gather(torch.cat((scalars[:, None], features), 1), *along)
                first = sent[:, 0] * by_scalar
                rest = torch.addcmul(directions * by_direction[:, None], sent[:, 1:], by_vector[:, None])
            change = sum_edges(torch.cat((first[:, None], rest), 1), *onto)
            scalars = scalars + change[:, 0]
            features = change[:, 1:] if features is None else features + change[:, 1:]
            norms = torch.linalg.vector_norm(features, dim=1)
            key = f"interactions.{layer}.update"
            both = torch.cat((scalars, norms), 1)
            update, *gated = linear(
                silu(linear(both, *_dense(weights, f"{key}.update_mlp.0"))), *gates[layer]
            ).split(width, dim=1)
            scalars = scalars + update
            if gated:
                turned = torch.matmul(weights[f"{key}.mixing_matrix"], features)
                features = torch.addcmul(features * gated[0][:, None], turned, gated[1][:, None])
        return _sum_over_graphs(_readout(scalars, weights), pairs)

    return energies


def edge_vectors(positions: Any, pairs: Pairs) -> Any:
    """(n, 3) positions to (e, 3) vectors from receiver to sender, A."""
    vectors = positions.index_select(0, pairs.senders) - positions.index_select(0, pairs.receivers)
    return vectors if pairs.shifts is None else vectors + pairs.shifts


def energy_and_forces(energies: Energies, pairs: Pairs) -> Call:
    """Energies and forces by one backward pass that ends at the edge vectors.

    An edge pulls its two atoms in opposite directions, so the forces are one sum over the sorted edges.
    """
    import torch
    from torch.nn.functional import embedding_bag

    def call(positions: Any) -> tuple[Any, Any]:
        vectors = edge_vectors(positions, pairs).detach().requires_grad_()
        found = energies(vectors)
        (slope,) = torch.autograd.grad(found.sum(), vectors)
        forces = embedding_bag(
            pairs.edges, slope - slope.index_select(0, pairs.reverse), pairs.offsets, mode="sum"
        )
        return found.detach(), forces

    return call


def energy_and_forces_of_positions(energies: Energies, pairs: Pairs) -> Call:
    """Energies and forces by a backward pass to the positions, as published; no list of opposites is used."""
    import torch

    def call(positions: Any) -> tuple[Any, Any]:
        moved = positions.detach().requires_grad_()
        found = energies(edge_vectors(moved, pairs))
        (slope,) = torch.autograd.grad(found.sum(), moved)
        return found.detach(), -slope

    return call


def stress(energies: Energies, pairs: Pairs, positions: Any, cell: Any) -> Any:
    """Stress (6,) of a periodic structure in eV/A^3, xx, yy, zz, yz, xz, xy: strain derivative by volume."""
    import torch

    strain = torch.zeros(3, 3, dtype=positions.dtype, requires_grad=True)
    vectors = edge_vectors(positions, pairs)
    total = energies(vectors + vectors @ (strain + strain.T) / 2).sum()
    (slope,) = torch.autograd.grad(total, strain)
    by_volume = slope / torch.linalg.det(torch.as_tensor(cell, dtype=positions.dtype)).abs()
    rows, columns = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    return by_volume[rows, columns]


def compiled(call: Call, example: Any) -> Call:
    """The call with its backward pass as one graph through ``torch.compile``, for the example's shape.

    Raises:
      PeerError: it does not work here: a C++ compiler is missing, for example.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    fast = torch.compile(make_fx(call)(example), dynamic=False)

    def without_gradients(positions: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            return fast(positions)

    try:
        without_gradients(example)
    except Exception as error:
        raise PeerError(f"torch.compile failed ({type(error).__name__})") from error
    return without_gradients


def _radial(distances: Any, weights: Weights, cutoff: float) -> Any:
    """(e,) to (e, k): Gaussians times a cosine that ends at the cutoff."""
    import torch

    bumps = torch.exp(-(((distances[:, None] - weights["rbf.centers"]) / weights["rbf.widths"]) ** 2))
    envelope = 0.5 * (torch.cos(math.pi / cutoff * distances) + 1) * (distances < cutoff)
    return bumps * envelope[:, None]


def _two_layers(inputs: Any, weights: Weights, key: str) -> Any:
    from torch.nn.functional import linear, silu

    return linear(silu(linear(inputs, *_dense(weights, f"{key}.0"))), *_dense(weights, f"{key}.2"))


def _readout(scalars: Any, weights: Weights) -> Any:
    """(n, c) to (n,) eV."""
    from torch.nn.functional import linear, silu

    hidden = silu(linear(scalars, *_dense(weights, "energy_head.0")))
    hidden = silu(linear(hidden, *_dense(weights, "energy_head.2")))
    return linear(hidden, *_dense(weights, "energy_head.4"))[:, 0]


def _sum_over_graphs(atomic: Any, pairs: Pairs) -> Any:
    # torch.compile of torch 2.13 cannot index_add into a single element.
    if pairs.num_graphs == 1:
        return atomic.sum(0, keepdim=True)
    return atomic.new_zeros(pairs.num_graphs).index_add(0, pairs.graph, atomic)


def _dense(weights: Weights, key: str) -> tuple[Any, Any]:
    return weights[f"{key}.weight"], weights[f"{key}.bias"]


@cache
def _sparse_operations() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Gathers and sums over edges whose transposes are again gathers and sums, without a scatter."""
    from torch.autograd import Function
    from torch.nn.functional import embedding_bag

    def summed(rows: Any, values: Any, offsets: Any) -> Any:
        """Sum the given rows of (e, ...) over runs that begin at the offsets."""
        flat = embedding_bag(rows, values.flatten(1), offsets, mode="sum")
        return flat.view(len(offsets), *values.shape[1:])

    class Gather(Function):
        """Rows of the senders; the edges that leave an atom are the opposites of those that reach it."""

        @staticmethod
        def forward(ctx: Any, values: Any, senders: Any, reverse: Any, offsets: Any) -> Any:
            ctx.save_for_backward(reverse, offsets)
            return values.index_select(0, senders)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            reverse, offsets = ctx.saved_tensors
            return summed(reverse, gradient, offsets), None, None, None

    class GatherFilters(Function):
        """A pair's filter for both of its edges."""

        @staticmethod
        def forward(ctx: Any, values: Any, pair: Any, firsts: Any, reverse: Any) -> Any:
            ctx.save_for_backward(firsts, reverse)
            return values.index_select(0, pair)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            firsts, reverse = ctx.saved_tensors
            back = reverse.index_select(0, firsts)
            return gradient.index_select(0, firsts) + gradient.index_select(0, back), None, None, None

    class SumEdges(Function):
        """Sums over the edges of each receiver."""

        @staticmethod
        def forward(ctx: Any, values: Any, receivers: Any, edges: Any, offsets: Any) -> Any:
            ctx.save_for_backward(receivers)
            return summed(edges, values, offsets)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (receivers,) = ctx.saved_tensors
            return gradient.index_select(0, receivers), None, None, None

    return Gather.apply, GatherFilters.apply, SumEdges.apply
