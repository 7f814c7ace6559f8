"""Structures packed into rows of few shapes, so that any molecules compile a handful of programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import numpy as np

from sparsejax.models.force_field.neighbors import EdgeList, Neighbors, all_pairs, edge_list, rows_from_edges
from sparsejax.models.force_field.structure import Structure

BLOCKS = (4, 8, 12, 16, 20, 24, 32, 48, 64)
"""Atoms that molecules are padded to; larger ones get lists of neighbours."""

MOST_ATOMS = 1024
"""Of molecules computed together, padding included."""

_SLOTS = 8  # slots of a list come in such steps


@flax.struct.dataclass
class Packed:
    """Structures as `predict_rows` reads them.

    Attributes:
      species: (n,) int32; 0 for padding.
      positions: (n, 3) A.
      neighbors: rows of all atoms.
      graph_of_atom: (n,) int32.
      cell: (g, 3, 3) A; None where nothing repeats.
      starts: first atom of each structure, padding included.
      counts: atoms of each structure; 0 for padding.
    """

    species: Any
    positions: Any
    neighbors: Neighbors
    graph_of_atom: Any
    cell: Any
    starts: Any
    counts: Any


def pack(
    structures: Sequence[Structure], cutoff: float, dtype: Any = np.float32
) -> Iterator[tuple[Packed, list[int]]]:
    """Molecules of similar size together, everything else alone.

    Args:
      structures: checked.
      cutoff: A.
      dtype: of positions and cells.

    Yields:
      packed structures, and their places in ``structures``.
    """
    groups: dict[int, list[int]] = {}
    for place, structure in enumerate(structures):
        block = block_of(structure)
        if block is None:
            yield in_lists([structure], cutoff, dtype)[0], [place]
            continue
        groups.setdefault(block, []).append(place)
    for block, places in groups.items():
        together = max(1, MOST_ATOMS // block)
        for at in range(0, len(places), together):
            some = places[at : at + together]
            graphs = together if len(places) > together else 1 << (len(places) - 1).bit_length()
            yield in_blocks([structures[place] for place in some], block, dtype, graphs=graphs), some


def block_of(structure: Structure) -> int | None:
    """Atoms that a molecule is padded to; None for what repeats or is larger, which gets a list."""
    if structure.periodic or structure.num_atoms > BLOCKS[-1]:
        return None
    return next(block for block in BLOCKS if structure.num_atoms <= block)


def in_blocks(
    molecules: Sequence[Structure], block: int, dtype: Any = np.float32, *, graphs: int | None = None
) -> Packed:
    """Molecules one after another, each padded to the same number of atoms.

    Args:
      molecules: checked, without periodic ones.
      block: atoms that each is padded to.
      dtype: of positions.
      graphs: molecules in all, the last of them empty; None for no empty ones.
    """
    graphs = len(molecules) if graphs is None else graphs
    species = np.zeros((graphs, block), np.int32)
    positions = np.zeros((graphs, block, 3), dtype)
    counts = np.zeros(graphs, np.int32)
    for number, molecule in enumerate(molecules):
        counts[number] = atoms = molecule.num_atoms
        species[number, :atoms] = molecule.species
        # Near the origin single precision is finest.
        positions[number, :atoms] = molecule.positions - molecule.positions.mean(0)
    return Packed(
        species.reshape(-1),
        positions.reshape(-1, 3),
        all_pairs(graphs, block, species > 0),
        np.repeat(np.arange(graphs, dtype=np.int32), block),
        None,
        np.arange(graphs, dtype=np.int32) * block,
        counts,
    )


def in_lists(structures: Sequence[Structure], cutoff: float, dtype: Any = np.float32) -> list[Packed]:
    """Structures with lists of neighbours, each alone, all with the rows and slots of the largest.

    Args:
      structures: checked; either all repeat or none does.
      cutoff: A.
      dtype: of positions and cells.
    """
    edges = [edge_list(structure, cutoff) for structure in structures]
    rows = max(padded(structure.num_atoms) for structure in structures)
    slots = max(_slots(own) for own in edges)
    return [
        _with_list(structure, rows_from_edges(own, rows, slots=slots), dtype)
        for structure, own in zip(structures, edges, strict=True)
    ]


def _with_list(structure: Structure, neighbors: Neighbors, dtype: Any) -> Packed:
    rows, atoms = len(neighbors.mask), structure.num_atoms
    species = np.zeros(rows, np.int32)
    positions = np.zeros((rows, 3), dtype)
    species[:atoms], positions[:atoms] = structure.species, structure.positions - structure.positions.mean(0)
    cell = structure.cell if structure.periodic and structure.cell is not None else None
    return Packed(
        species,
        positions,
        neighbors,
        np.zeros(rows, np.int32),
        None if cell is None else cell[None].astype(dtype),
        np.zeros(1, np.int32),
        np.array([atoms], np.int32),
    )


def padded(count: int) -> int:
    """Rows for so many atoms, or for so many molecules: at most an eighth more.

    Example:
      >>> [padded(count) for count in (7, 100, 1000)]
      [7, 104, 1024]
    """
    step = max(1, 1 << max(0, count.bit_length() - 4))
    return math.ceil(count / step) * step


def _slots(edges: EdgeList) -> int:
    """Slots of the fullest row, in steps."""
    most = int(np.bincount(edges.receivers, minlength=1).max(initial=0))
    return max(_SLOTS, math.ceil(most / _SLOTS) * _SLOTS)
