"""Batches of labelled structures in few padded shapes; which one is next depends on seed and step alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jraph import GraphsTuple

from sparsejax.models.force_field.buckets import size_buckets
from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.graph import Capacity, batch_graphs
from sparsejax.models.force_field.losses import LossMasks
from sparsejax.models.force_field.neighbors import EdgeList, edge_list
from sparsejax.models.force_field.reference_energies import reference_sum

_HELD_EDGES = 1 << 23  # 160 MB; edges beyond are found again for each batch
_NODES_STEP, _EDGES_STEP = 8, 128  # capacities are multiples: vector units like it


class LabelledBatch(NamedTuple):
    """A padded batch on the host. With several shards, every array has them as a first axis.

    Attributes:
      graph: of `batch_graphs`.
      labels: ``energy`` (g,) eV, ``forces`` (n, 3) eV/A, ``stress`` (g, 6) eV/A^3 and ``stress_mask`` (g,)
        bool; zeros in padding, and where there is no stress.
    """

    graph: GraphsTuple
    labels: dict[str, np.ndarray]


class _Bucket(NamedTuple):
    """Structures of like sizes.

    Attributes:
      members: their numbers.
      batches: that they fill in an epoch, evenly.
      capacity: of a shard of any such batch.
    """

    members: np.ndarray
    batches: int
    capacity: Capacity


class BucketedBatches:
    """Batches by step: ``batches[step]`` is the same whoever asks, in whatever order, before or after a kill.

    Structures are sorted into a few buckets of like sizes, each with one padded shape, so that little is
    compiled and little is wasted. In every epoch each structure comes up once; batches of a bucket are as
    even as can be, and the order of structures and batches is that of ``numpy.random.default_rng((seed,
    epoch))``.

    Args:
      dataset: labelled structures, read once now and then as they are needed; best in memory.
      cutoff: A, inclusive.
      batch_size: structures of a batch at most, over all shards.
      seed: of the orders.
      buckets: how many at most; the number of shapes that are compiled. None has fewer structures than a
        batch (of the largest, with ``max_atoms``), so that batches keep their size.
      max_atoms: of a batch, over all shards; large structures then come in smaller batches, at least one by
        one for each shard.
      shuffle: False keeps the order of sizes, the same in every epoch.
      reference_energies: (max_z + 1,) eV, taken off the labels in float64, before they are rounded.
      shards: parts of every batch, for as many devices.
      own: the shards to make, where several processes make one batch.
      dtype: of positions and labels.

    Raises:
      ValueError: no structures, or a number that is not positive.
      DatasetError: a structure is damaged or holds NaN.

    Example:
      >>> from sparsejax.models.force_field.structure import Structure
      >>> def molecule(size):
      ...     places = np.arange(3.0 * size).reshape(size, 3)
      ...     atoms = Structure(np.ones(size, np.int32), places, None, np.zeros(3, bool))
      ...     return LabelledStructure(atoms, -1.0 * size, np.zeros((size, 3)))
      >>> batches = BucketedBatches([molecule(size) for size in (2, 9, 2, 10)], 5.0, batch_size=2)
      >>> len(batches), sorted(capacity.nodes for capacity in batches.capacities)
      (2, [8, 24])
      >>> batches[17].graph.n_node.shape
      (3,)
    """

    def __init__(
        self,
        dataset: Sequence[LabelledStructure],
        cutoff: float,
        *,
        batch_size: int,
        seed: int = 0,
        buckets: int = 4,
        max_atoms: int | None = None,
        shuffle: bool = True,
        reference_energies: np.ndarray | None = None,
        shards: int = 1,
        own: slice = slice(None),
        dtype: Any = np.float32,
    ):
        positive = {"batch_size": batch_size, "buckets": buckets, "shards": shards}
        positive |= {} if max_atoms is None else {"max_atoms": max_atoms}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be positive, and is {value}")
        if not len(dataset):
            raise ValueError("there are no structures to make batches of")
        self.shards = shards
        self._dataset, self._cutoff, self._own, self._dtype = dataset, cutoff, own, dtype
        self._seed, self._shuffle, self._references = seed, shuffle, reference_energies
        self._edges: list[EdgeList | None] = []
        atoms, edges = self._look_through()
        least = batch_size if max_atoms is None else min(batch_size, max(1, max_atoms // int(atoms.max())))
        self._buckets = [
            self._bucket(members, atoms, edges, batch_size, max_atoms)
            for members in size_buckets(atoms, buckets, least)
        ]
        self._order: tuple[int, list[tuple[_Bucket, np.ndarray]]] = (-1, [])

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(bucket.batches for bucket in self._buckets)

    def __getitem__(self, step: int) -> LabelledBatch:
        """The batch of a step, counted from 0 on through all epochs."""
        if step < 0:
            raise IndexError(f"steps count from 0, not {step}")
        epoch, place = divmod(step, len(self))
        order = self._order
        if order[0] != epoch:  # replaced as a whole: several threads may ask
            order = self._order = epoch, self._ordered(epoch)
        bucket, members = order[1][place]
        parts = [self._shard(part, bucket) for part in np.array_split(members, self.shards)[self._own]]
        if self.shards == 1:
            return parts[0]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)

    def __iter__(self) -> Iterator[LabelledBatch]:
        """All batches of the first epoch: of every structure once."""
        return self.steps(0, len(self))

    def steps(self, start: int, stop: int, *, ahead: int = 2) -> Iterator[LabelledBatch]:
        """Batches of the steps from ``start`` to ``stop``, made ahead by a thread.

        Args:
          start: first step.
          stop: step after the last.
          ahead: batches that wait.
        """
        with ThreadPoolExecutor(max_workers=1) as thread:
            waiting = [
                thread.submit(self.__getitem__, step) for step in range(start, min(stop, start + ahead))
            ]
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + ahead < stop:
                    waiting.append(thread.submit(self.__getitem__, step + ahead))
                yield batch

    @property
    def capacities(self) -> tuple[Capacity, ...]:
        """Padded sizes of the buckets' batches, of one shard each; as many programs are compiled."""
        return tuple(bucket.capacity for bucket in self._buckets)

    @property
    def padding(self) -> float:
        """Share of the atoms of an epoch that is padding."""
        padded = sum(bucket.batches * self.shards * bucket.capacity.nodes for bucket in self._buckets)
        return 1 - self._num_atoms / padded

    def _look_through(self) -> tuple[np.ndarray, np.ndarray]:
        """Atoms and edges of each structure; keeps as many lists of edges as fit."""
        atoms, counts, held = [], [], 0
        for sample in self._dataset:
            edges = edge_list(sample.structure, self._cutoff)
            held += edges.num_edges
            self._edges.append(edges if held <= _HELD_EDGES else None)
            atoms.append(sample.structure.num_atoms)
            counts.append(edges.num_edges)
        self._num_atoms = sum(atoms)
        return np.array(atoms), np.array(counts)

    def _bucket(
        self,
        members: np.ndarray,
        atoms: np.ndarray,
        edges: np.ndarray,
        batch_size: int,
        max_atoms: int | None,
    ) -> _Bucket:
        if max_atoms is not None:
            batch_size = min(batch_size, max(self.shards, max_atoms // int(atoms[members].max())))
        batches = math.ceil(len(members) / batch_size)
        rows = math.ceil(math.ceil(len(members) / batches) / self.shards)
        # No batch can need more than the largest structures together.
        nodes, links = (np.sort(sizes[members])[-rows:].sum() for sizes in (atoms, edges))
        capacity = Capacity(_up(nodes + 1, _NODES_STEP), _up(max(links, 1), _EDGES_STEP), rows + 1)
        return _Bucket(members, batches, capacity)

    def _ordered(self, epoch: int) -> list[tuple[_Bucket, np.ndarray]]:
        """The epoch's batches: their buckets and members."""
        rng = np.random.default_rng((self._seed, epoch))
        order = [
            (bucket, members)
            for bucket in self._buckets
            for members in np.array_split(
                rng.permutation(bucket.members) if self._shuffle else bucket.members, bucket.batches
            )
        ]
        return [order[place] for place in rng.permutation(len(order))] if self._shuffle else order

    def _shard(self, members: np.ndarray, bucket: _Bucket) -> LabelledBatch:
        """Some structures, padded to the bucket's shape; none at all become a batch of padding."""
        numbers = members if len(members) else bucket.members[:1]
        samples = [self._dataset[int(number)] for number in numbers]
        structures = [sample.structure for sample in samples]
        held = [self._edges[number] for number in numbers]
        edges = [
            edge_list(structure, self._cutoff) if known is None else known
            for known, structure in zip(held, structures, strict=True)
        ]
        graph = batch_graphs(structures, self._cutoff, bucket.capacity, self._dtype, edges=edges)
        if not len(members):
            graph, samples = _blank(graph), []
        return LabelledBatch(graph, self._labels(samples, bucket.capacity))

    def _labels(self, samples: list[LabelledStructure], capacity: Capacity) -> dict[str, np.ndarray]:
        labels = {
            "energy": np.zeros(capacity.graphs, self._dtype),
            "forces": np.zeros((capacity.nodes, 3), self._dtype),
            "stress": np.zeros((capacity.graphs, 6), self._dtype),
            "stress_mask": np.zeros(capacity.graphs, bool),
        }
        start = 0
        for number, sample in enumerate(samples):
            species, stop = sample.structure.species, start + sample.structure.num_atoms
            offset = 0.0 if self._references is None else reference_sum(self._references, species)
            labels["energy"][number] = sample.energy - offset
            labels["forces"][start:stop] = sample.forces
            if sample.stress is not None:
                labels["stress"][number], labels["stress_mask"][number] = sample.stress, True
            start = stop
        return labels


def loss_masks(graph: GraphsTuple) -> LossMasks:
    """What of a batch is real, for the losses and metrics.

    Args:
      graph: of `batch_graphs`; may be traced.

    Example:
      >>> from sparsejax.models.force_field.structure import Structure
      >>> atom = Structure(np.array([6]), np.zeros((1, 3)), None, np.zeros(3, bool))
      >>> loss_masks(batch_graphs([atom], 5.0, Capacity(3, 1, 2))).atoms
      array([ True, False, False])
    """
    return LossMasks(graph.nodes["mask"], graph.globals["mask"], graph.n_node)


def _blank(graph: GraphsTuple) -> GraphsTuple:
    """The same shapes and places, with nothing real."""
    for part in (graph.nodes, graph.edges, graph.globals):
        part["mask"] = np.zeros_like(part["mask"])
    return graph


def _up(size: int, step: int) -> int:
    return int(-(-size // step) * step)
