"""Structures packed into rows of few shapes, so that any molecules compile a handful of programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import numpy as np

from sparsejax.models.force_field.neighbors import Neighbors, all_pairs, edge_list, rows_from_edges
from sparsejax.models.force_field.structure import Structure

BLOCKS = (4, 8, 12, 16, 20, 24, 32, 48, 64)
"""Atoms that molecules are padded to; larger ones get lists of neighbours."""

_SLOTS = 8  # slots of a list come in such steps
_MOST_ATOMS = 1024  # of molecules computed together


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
        if structure.periodic or structure.num_atoms > BLOCKS[-1]:
            yield _with_list(structure, cutoff, dtype), [place]
            continue
        block = next(block for block in BLOCKS if structure.num_atoms <= block)
        groups.setdefault(block, []).append(place)
    for block, places in groups.items():
        together = max(1, _MOST_ATOMS // block)
        for at in range(0, len(places), together):
            some = places[at : at + together]
            graphs = together if len(places) > together else 1 << (len(places) - 1).bit_length()
            yield in_blocks([structures[place] for place in some], block, dtype, graphs=graphs), some


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


def _with_list(structure: Structure, cutoff: float, dtype: Any) -> Packed:
    edges = edge_list(structure, cutoff)
    atoms = structure.num_atoms
    padded = _padded(atoms)
    most = int(np.bincount(edges.receivers, minlength=1).max(initial=0))
    slots = max(_SLOTS, math.ceil(most / _SLOTS) * _SLOTS)
    species = np.zeros(padded, np.int32)
    positions = np.zeros((padded, 3), dtype)
    species[:atoms], positions[:atoms] = structure.species, structure.positions - structure.positions.mean(0)
    cell = structure.cell if structure.periodic and structure.cell is not None else None
    return Packed(
        species,
        positions,
        rows_from_edges(edges, padded, slots=slots),
        np.zeros(padded, np.int32),
        None if cell is None else cell[None].astype(dtype),
        np.zeros(1, np.int32),
        np.array([atoms], np.int32),
    )


def _padded(atoms: int) -> int:
    """Rows for so many atoms: at most an eighth more."""
    step = max(1, 1 << max(0, atoms.bit_length() - 4))
    return math.ceil(atoms / step) * step
