"""Which atoms are neighbours: a flat list of edges, or one row of slots per atom."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Edges(NamedTuple):
    """Where neighbours are; *e is (n, m) for rows, (e,) for a flat list.

    Attributes:
      distances: (*e,) A.
      directions: (*e, 3) unit vectors from receiver to sender.
      mask: (*e,) which edges there are; all others add nothing.
    """

    distances: Array
    directions: Array
    mask: Array


@flax.struct.dataclass
class EdgeLayout:
    """Directed edges in any number and order.

    Attributes:
      senders: (e,) nodes that messages come from.
      receivers: (e,) nodes that they go to.
      sorted_receivers: whether the receivers ascend.
    """

    senders: Array
    receivers: Array
    sorted_receivers: bool = flax.struct.field(pytree_node=False, default=False)


@flax.struct.dataclass
class RowLayout:
    """The neighbours of every node in a row of m slots; if j is a neighbour of i, so is i of j.

    Attributes:
      senders: (n, m) the neighbour in each slot; the row's own node where there is none.
      reverse: (n, m) slot of the opposite edge in the row of the neighbour.
      block: b > 0 says that each block of b consecutive nodes has all pairs: slot k of node i is node
        ``i // b * b + k``, and m is b. Nothing is gathered then.
    """

    senders: Array
    reverse: Array
    block: int = flax.struct.field(pytree_node=False, default=0)


def of_senders(nodes: Array, rows: RowLayout) -> Array:
    """What each slot's neighbour has: (n, m, ...) of (n, ...), with a derivative that gathers.

    Args:
      nodes: values of every node.
      rows: the neighbours.

    Example:
      >>> rows = RowLayout(jnp.array([[1], [0]]), jnp.zeros((2, 1), jnp.int32))
      >>> of_senders(jnp.array([3.0, 5.0]), rows).tolist()
      [[5.0], [3.0]]
    """
    if not rows.block:
        return _gathered(nodes, rows)
    blocks = nodes.reshape(-1, 1, rows.block, *nodes.shape[1:])
    spread = jnp.broadcast_to(blocks, (blocks.shape[0], rows.block, *blocks.shape[2:]))
    return spread.reshape(nodes.shape[0], rows.block, *nodes.shape[1:])


def opposite(edges: Array, rows: RowLayout) -> Array:
    """What the opposite edge of each slot has: (n, m, ...) of (n, m, ...).

    Args:
      edges: values of every slot.
      rows: the neighbours.
    """
    if rows.block:
        blocks = edges.reshape(-1, rows.block, *edges.shape[1:])
        return blocks.swapaxes(1, 2).reshape(edges.shape)
    return edges[rows.senders, rows.reverse]


@jax.custom_vjp
def _gathered(nodes: Array, rows: RowLayout) -> Array:
    return nodes[rows.senders]


def _gathered_forward(nodes: Array, rows: RowLayout) -> tuple[Array, RowLayout]:
    return _gathered(nodes, rows), rows


def _gathered_backward(rows: RowLayout, cotangent: Array) -> tuple[Array, RowLayout]:
    """A node's part: the cotangents of the opposite edges of its row, gathered, never scattered."""
    return _collected(cotangent, rows), float0s(rows)


_gathered.defvjp(_gathered_forward, _gathered_backward)


@jax.custom_vjp
def _collected(edges: Array, rows: RowLayout) -> Array:
    """Sum over the slots that gather from a node; the transpose of `_gathered`."""
    return opposite(edges, rows).sum(1)


def _collected_forward(edges: Array, rows: RowLayout) -> tuple[Array, RowLayout]:
    return _collected(edges, rows), rows


def _collected_backward(rows: RowLayout, cotangent: Array) -> tuple[Array, RowLayout]:
    return _gathered(cotangent, rows), float0s(rows)


_collected.defvjp(_collected_forward, _collected_backward)


@flax.struct.dataclass
class Pairs:
    """Undirected pairs of a `RowLayout`: the two slots of each are computed once.

    Attributes:
      of_edge: (n, m) pair of a slot; of an empty slot any.
      first: (p,) a slot of the pair, counted through all rows.
      second: (p,) the opposite slot.
      real: (p,) whether there is such a pair; the first ones are.
    """

    of_edge: Array
    first: Array
    second: Array
    real: Array


def pairs_of(rows: RowLayout) -> Pairs:
    """The pairs of rows; half as many as slots, however many of these are empty.

    Empty slots are their own opposites and make no pair. A row layout in which a node has itself for a
    neighbour (a periodic image) has two slots for that, as for any other pair.

    Args:
      rows: the neighbours.

    Example:
      >>> rows = RowLayout(jnp.array([[1], [0]]), jnp.zeros((2, 1), jnp.int32))
      >>> pairs_of(rows).first.tolist(), pairs_of(rows).of_edge.tolist()
      ([0], [[0], [0]])
    """
    if rows.block:
        return _pairs_of_blocks(rows.senders.shape[0], rows.block)
    nodes, slots = rows.senders.shape
    own = jnp.arange(nodes * slots, dtype=jnp.int32).reshape(nodes, slots)
    other = rows.senders * slots + rows.reverse
    leads = (own < other).reshape(-1)
    number = jnp.cumsum(leads, dtype=jnp.int32) - 1
    (first,) = jnp.nonzero(leads, size=(nodes * slots + 1) // 2, fill_value=0)
    real = jnp.arange(len(first)) < number[-1] + 1
    return Pairs(number[jnp.minimum(own, other)], first.astype(jnp.int32), other.reshape(-1)[first], real)


def _pairs_of_blocks(nodes: int, block: int) -> Pairs:
    low, high = np.triu_indices(block, min(1, block - 1))  # a lone node and itself: one pair that is none
    count = len(low)
    inside = np.zeros((block, block), np.int32)
    inside[low, high] = inside[high, low] = np.arange(count)
    blocks = np.arange(nodes // block, dtype=np.int32)[:, None]
    of_edge = (blocks[:, None] * count + inside).reshape(nodes, block)
    first, second = (blocks * block**2 + a * block + b for a, b in ((low, high), (high, low)))
    return Pairs(
        jnp.asarray(of_edge),
        jnp.asarray(first.reshape(-1)),
        jnp.asarray(second.reshape(-1)),
        jnp.full(first.size, block > 1),
    )


def over_edges(of_pairs: Array, pairs: Pairs) -> Array:
    """Values (n, m, c) of slots from those (p, c) of pairs, with a derivative that gathers."""
    return _over_edges(of_pairs, pairs)


@jax.custom_vjp
def _over_edges(of_pairs: Array, pairs: Pairs) -> Array:
    return of_pairs[pairs.of_edge]


def _over_edges_forward(of_pairs: Array, pairs: Pairs) -> tuple[Array, Pairs]:
    return _over_edges(of_pairs, pairs), pairs


def _over_edges_backward(pairs: Pairs, cotangent: Array) -> tuple[Array, Pairs]:
    return _of_pairs(cotangent, pairs), float0s(pairs)


_over_edges.defvjp(_over_edges_forward, _over_edges_backward)


@jax.custom_vjp
def _of_pairs(edges: Array, pairs: Pairs) -> Array:
    """Sum of the two slots of each pair; the transpose of `_over_edges` where empty slots hold nothing."""
    flat = edges.reshape(-1, *edges.shape[2:])
    return jnp.where(pairs.real[:, None], flat[pairs.first] + flat[pairs.second], 0)


def _of_pairs_forward(edges: Array, pairs: Pairs) -> tuple[Array, Pairs]:
    return _of_pairs(edges, pairs), pairs


def _of_pairs_backward(pairs: Pairs, cotangent: Array) -> tuple[Array, Pairs]:
    return _over_edges(cotangent, pairs), float0s(pairs)


_of_pairs.defvjp(_of_pairs_forward, _of_pairs_backward)


def float0s(integers: Any) -> Any:
    """What stands for the cotangent of arrays of integers and truth values."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), integers)
