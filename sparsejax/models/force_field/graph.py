"""Batches of structures as padded `jraph.GraphsTuple`, of few shapes, so that little is compiled.

The only file that touches jraph: of the archived version, ``zero_out_padding`` and
``get_fully_connected_graph`` are broken, and nothing here or elsewhere may call them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import jraph
import numpy as np
from jax import Array
from jraph import GraphsTuple

from sparsejax.models.force_field.neighbors import EdgeList, edge_list
from sparsejax.models.force_field.structure import Structure, as_structure

_LOG = logging.getLogger("sparsejax.force_field")


class Capacity(NamedTuple):
    """Sizes of a padded batch.

    Attributes:
      nodes: atoms, at least one of them padding.
      edges: directed edges.
      graphs: structures, at least one of them padding.
    """

    nodes: int
    edges: int
    graphs: int


@dataclass
class GrowingCapacity:
    """A capacity that grows in large steps, never shrinks, and tells the log of each step.

    Every step compiles once more; steps by a factor keep them few whatever comes.

    Attributes:
      current: what batches are padded to now.
      factor: by how much a size grows at least.

    Example:
      >>> capacity = GrowingCapacity()
      >>> capacity.fit(Capacity(20, 300, 2))
      Capacity(nodes=32, edges=512, graphs=2)
      >>> capacity.fit(Capacity(10, 600, 2))
      Capacity(nodes=32, edges=1024, graphs=2)
    """

    current: Capacity = Capacity(16, 256, 2)
    factor: float = 2.0

    def __post_init__(self):
        """Check the factor."""
        if not self.factor > 1:
            raise ValueError(f"factor must be larger than 1, not {self.factor!r}")

    def fit(self, needed: Capacity) -> Capacity:
        """Grow until ``needed`` fits.

        Args:
          needed: sizes of the batch to come, padding included.

        Returns:
          The capacity from now on.
        """
        old = self.current
        grown = (
            size if need <= size else max(need, math.ceil(size * self.factor))
            for need, size in zip(needed, old, strict=True)
        )
        self.current = Capacity(*grown)
        if self.current != old:
            _LOG.info("capacity grows from %s to %s; the next call compiles", tuple(old), tuple(self.current))
        return self.current


def batch_graphs(
    structures: Sequence[Any],
    cutoff: float,
    capacity: Capacity | GrowingCapacity | None = None,
    dtype: Any = np.float32,
    *,
    edges: Sequence[EdgeList] | None = None,
) -> GraphsTuple:
    """One padded batch of structures.

    Edges are sorted by receiver. Padding follows jraph: the first padding graph holds all padded atoms and
    edges, the others are empty, and the last graph is always padding. A padded edge joins a padded atom to
    its own image 1 A away, so that distances and their gradients stay finite.

    Args:
      structures: anything that `as_structure` reads.
      cutoff: A, inclusive.
      capacity: to pad to; a `GrowingCapacity` grows where the batch does not fit; None pads by one atom
        and one graph only.
      dtype: of positions and cells.
      edges: of every structure, where they are known already.

    Returns:
      Host arrays. ``nodes`` "species" (n,) int32, "positions" (n, 3) A and "mask" (n,); ``edges`` "shift"
      (e, 3) int32 and "mask" (e,); ``globals`` "cell" (g, 3, 3) A (the identity where nothing repeats),
      "strain" (g, 3, 3) zeros, "periodic" (g,) and "mask" (g,); masks are False for padding.

    Raises:
      ValueError: no structures, a batch larger than a fixed capacity, or what `as_structure` and
        `edge_list` refuse.

    Example:
      >>> pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.1]]), None, np.zeros(3, bool))
      >>> graph = batch_graphs([pair, pair], 5.0, Capacity(8, 16, 4))
      >>> graph.senders[:4], graph.n_node
      (array([1, 0, 3, 2], dtype=int32), array([2, 2, 4, 0], dtype=int32))
    """
    atoms = [as_structure(structure) for structure in structures]
    if not atoms:
        raise ValueError("a batch needs at least one structure")
    if edges is None:
        edges = [edge_list(structure, cutoff) for structure in atoms]
    graphs = [_graph(structure, list_, dtype) for structure, list_ in zip(atoms, edges, strict=True)]
    needed = Capacity(
        sum(structure.num_atoms for structure in atoms) + 1,
        max(1, sum(list_.num_edges for list_ in edges)),
        len(atoms) + 1,
    )
    if isinstance(capacity, GrowingCapacity):
        capacity = capacity.fit(needed)
    elif capacity is None:
        capacity = needed
    elif any(need > size for need, size in zip(needed, capacity, strict=True)):
        raise ValueError(
            f"a batch that needs {tuple(needed)} nodes, edges and graphs, padding included, exceeds the "
            f"capacity {tuple(capacity)}"
        )
    return _padded(jraph.batch_np(graphs), capacity)


def _graph(structure: Structure, edges: EdgeList, dtype: Any) -> GraphsTuple:
    n, e = structure.num_atoms, edges.num_edges
    cell = structure.cell if structure.periodic and structure.cell is not None else np.eye(3)
    return GraphsTuple(
        nodes={
            "species": np.asarray(structure.species, np.int32),
            "positions": structure.positions.astype(dtype),
            "mask": np.ones(n, bool),
        },
        edges={"shift": edges.shifts, "mask": np.ones(e, bool)},
        senders=edges.senders,
        receivers=edges.receivers,
        n_node=np.array([n], np.int32),
        n_edge=np.array([e], np.int32),
        globals={
            "cell": cell[None].astype(dtype),
            "strain": np.zeros((1, 3, 3), dtype),
            "periodic": np.array([structure.periodic]),
            "mask": np.ones(1, bool),
        },
    )


def _padded(graph: GraphsTuple, capacity: Capacity) -> GraphsTuple:
    """Pad, then move the padding to where distances are safe."""
    padded = jraph.pad_with_graphs(graph, *capacity)
    padded.globals["cell"][~padded.globals["mask"]] = np.eye(3)
    padded.edges["shift"][~padded.edges["mask"], 0] = 1
    return padded._replace(
        senders=padded.senders.astype(np.int32), receivers=padded.receivers.astype(np.int32)
    )


def graph_of_node(graph: GraphsTuple) -> Array:
    """The graph of every node.

    Args:
      graph: of n nodes in g graphs; may be traced.

    Returns:
      (n,) int32.

    Example:
      >>> lone = Structure(np.array([6]), np.zeros((1, 3)), None, np.zeros(3, bool))
      >>> graph_of_node(batch_graphs([lone, lone], 5.0)).tolist()
      [0, 1, 2]
    """
    return _owner(graph.n_node, len(graph.nodes["mask"]))


def graph_of_edge(graph: GraphsTuple) -> Array:
    """The graph of every edge.

    Args:
      graph: of e edges in g graphs; may be traced.

    Returns:
      (e,) int32.

    Example:
      >>> pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.1]]), None, np.zeros(3, bool))
      >>> graph_of_edge(batch_graphs([pair], 5.0, Capacity(4, 3, 2))).tolist()
      [0, 0, 1]
    """
    return _owner(graph.n_edge, len(graph.senders))


def _owner(counts: Any, total: int) -> Array:
    graphs = jnp.arange(len(counts), dtype=jnp.int32)
    return jnp.repeat(graphs, counts, total_repeat_length=total)
