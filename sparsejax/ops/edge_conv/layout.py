"""Which atoms are neighbours: a flat list of edges, or pairs with one row of slots per atom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Edges(NamedTuple):
    """Where neighbours are; e counts the edges of an `EdgeLayout` or the pairs of a `PairLayout`.

    Attributes:
      distances: (e,) A.
      directions: (e, 3) unit vectors from receiver to sender; of a pair from its first to its second atom.
      mask: (e,) which of them there are; all others add nothing.
    """

    distances: Array
    directions: Array
    mask: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EdgeLayout:
    """Directed edges in any number and order.

    Attributes:
      senders: (e,) nodes that messages come from.
      receivers: (e,) nodes that they go to.
      sorted_receivers: whether the receivers ascend.
    """

    senders: Array
    receivers: Array
    sorted_receivers: bool = field(default=False, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairLayout:
    """Undirected pairs, each computed once, and the row of m slots in which every node finds its own.

    Attributes:
      first: (p,) a node of each pair.
      second: (p,) its neighbour; a pair may join a node to its own periodic image.
      real: (p,) which pairs there are. The last one never is.
      senders: (n, m) the neighbour in each slot of a node; the node itself in an empty slot.
      of_slot: (n, m) the pair of a slot; of an empty one a pair that is not real.
      leads: (n, m) whether the node of the row is the first of the pair, in this slot.
      slot_of_pair: (p,) a slot that leads, counted through all rows.
    """

    first: Array
    second: Array
    real: Array
    senders: Array
    of_slot: Array
    leads: Array
    slot_of_pair: Array


def pairs_of_rows(senders: Array, reverse: Array, mask: Array) -> PairLayout:
    """The pairs of symmetric rows of neighbours.

    Args:
      senders: (n, m) the neighbour in each slot.
      reverse: (n, m) slot of the opposite edge in the row of the neighbour.
      mask: (n, m) False for empty slots; the same for an edge and its opposite.

    Raises:
      ValueError: there is no node.

    Example:
      >>> layout = pairs_of_rows(jnp.array([[1], [0]]), jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1), bool))
      >>> layout.first.tolist(), layout.second.tolist(), layout.real.tolist()
      ([0, 0], [1, 1], [True, False])
    """
    nodes, slots = senders.shape
    if nodes == 0:
        raise ValueError("rows of neighbours need at least one node")
    if slots == 0:  # nobody has a neighbour: one empty slot each
        own_node = jnp.arange(nodes, dtype=jnp.int32)[:, None]
        return pairs_of_rows(own_node, jnp.zeros_like(own_node), jnp.zeros(own_node.shape, bool))
    own = jnp.arange(nodes * slots, dtype=jnp.int32).reshape(nodes, slots)
    other = senders.astype(jnp.int32) * slots + reverse.astype(jnp.int32)
    leads = mask & (own < other)
    number = jnp.cumsum(leads.reshape(-1), dtype=jnp.int32) - 1
    count = nodes * slots // 2 + 1  # a pair has two slots, so that one pair is always left over
    (slot_of_pair,) = jnp.nonzero(leads.reshape(-1), size=count, fill_value=0)
    return PairLayout(
        first=slot_of_pair // slots,
        second=senders.reshape(-1)[slot_of_pair],
        real=jnp.arange(count) <= number[-1],
        senders=senders,
        of_slot=jnp.where(mask, number[jnp.minimum(own, other)], count - 1),
        leads=leads,
        slot_of_pair=slot_of_pair,
    )


def pairs_of_blocks(mask: Array | np.ndarray) -> PairLayout:
    """The pairs of blocks of b nodes that all see each other: nothing to search for.

    Args:
      mask: (n, b) which slots there are: slot k of node i is node ``i // b * b + k``.

    Example:
      >>> layout = pairs_of_blocks(jnp.array([[False, True], [True, False]]))
      >>> layout.first.tolist(), layout.second.tolist(), layout.real.tolist()
      ([0, 0], [1, 0], [True, False])
    """
    nodes, block = mask.shape
    low, high = np.triu_indices(block, 1)
    starts = np.arange(0, nodes, block)[:, None]
    first, second, slot = (
        (starts + low).reshape(-1),
        (starts + high).reshape(-1),
        np.tile(high, len(starts)),
    )
    number = np.full((block, block), -1)
    number[low, high] = number[high, low] = np.arange(len(low))
    of_slot = np.arange(len(starts))[:, None, None] * len(low) + number
    of_slot = np.where(number < 0, len(first), of_slot).reshape(nodes, block)
    senders = np.repeat(starts, block, 0) + np.arange(block)
    rows = np.arange(nodes)[:, None]
    return PairLayout(
        first=jnp.asarray(np.append(first, 0), jnp.int32),
        second=jnp.asarray(np.append(second, 0), jnp.int32),
        real=jnp.append(mask[first, slot], False),
        senders=jnp.asarray(senders, jnp.int32),
        of_slot=jnp.asarray(of_slot, jnp.int32),
        leads=jnp.asarray(rows % block < np.arange(block)),
        slot_of_pair=jnp.asarray(np.append(first * block + slot, 0), jnp.int32),
    )


def ends(nodes: Array, layout: PairLayout) -> tuple[Array, Array]:
    """What the two nodes of each pair have: (p, ...) and (p, ...) of (n, ...).

    Its derivative gathers, where that of an indexed array would scatter.

    Args:
      nodes: values of every node.
      layout: the pairs.
    """
    return _ends(nodes, layout)


@jax.custom_vjp
def _ends(nodes: Array, layout: PairLayout) -> tuple[Array, Array]:
    return nodes[layout.first], nodes[layout.second]


def _ends_forward(nodes: Array, layout: PairLayout) -> tuple[tuple[Array, Array], PairLayout]:
    return _ends(nodes, layout), layout


def _ends_backward(layout: PairLayout, cotangents: tuple[Array, Array]) -> tuple[Array, Any]:
    return collect(*cotangents, layout), zeros_of(layout)


_ends.defvjp(_ends_forward, _ends_backward)


@jax.custom_vjp
def collect(of_first: Array, of_second: Array, layout: PairLayout) -> Array:
    """Sums (n, ...) over the pairs of each node, of the value (p, ...) for its end; the transpose of `ends`.

    Args:
      of_first: values for the first nodes; those of pairs that are not real are left out.
      of_second: for the second ones.
      layout: the pairs.
    """
    shape = (-1, *(1,) * (of_first.ndim - 1))
    real, leads = layout.real.reshape(shape), layout.leads.reshape(*layout.leads.shape, *shape[1:])
    of_first, of_second = (jnp.where(real, part, 0) for part in (of_first, of_second))
    return jnp.where(leads, of_first[layout.of_slot], of_second[layout.of_slot]).sum(1)


def _collect_forward(of_first: Array, of_second: Array, layout: PairLayout) -> tuple[Array, PairLayout]:
    return collect(of_first, of_second, layout), layout


def _collect_backward(layout: PairLayout, cotangent: Array) -> tuple[Array, Array, Any]:
    real = layout.real.reshape(-1, *(1,) * (cotangent.ndim - 1))
    of_first, of_second = (jnp.where(real, part, 0) for part in _ends(cotangent, layout))
    return of_first, of_second, zeros_of(layout)


collect.defvjp(_collect_forward, _collect_backward)


def zeros_of(integers: Any) -> Any:
    """What stands for the cotangent of arrays of integers and truth values."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), integers)
