"""Who sees whom: every pair of atoms and images within a cutoff, as a list of edges and as rows per atom.

The vector of an edge points from the receiver to the source: ``positions[sender] - positions[receiver] +
shift @ cell``. Lists are symmetric: an edge is in the list exactly when its opposite is.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from flax import struct
from jax import Array

from sparsejax.models.force_field.structure import Structure, check_geometry, heights, periodic_cell

Method = Literal["auto", "vesin", "dense"]

DENSE_LIMIT = 1 << 25
"""Candidate pairs (atoms x atoms x images) that the dense search accepts: about two seconds of work."""

_DENSE_CHUNK = 1 << 20  # candidate pairs looked at together, to bound memory
_LEAST_VESIN_CUTOFF = 0.5  # A; vesin refuses much smaller ones
_VESIN_SPAN = 1e4  # cutoffs; beyond some 1e5 along an open axis vesin's grid overflows and ends the process


class EdgeList(NamedTuple):
    """Directed edges, sorted by receiver, then sender, then shift.

    Attributes:
      senders: (e,) int32, the atom that is seen.
      receivers: (e,) int32, the atom that sees it.
      shifts: (e, 3) int32, lattice vectors added to the sender's position.

    Example:
      >>> EdgeList(np.array([1, 0]), np.array([0, 1]), np.zeros((2, 3), np.int32)).num_edges
      2
    """

    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray

    @property
    def num_edges(self) -> int:
        """Number of directed edges e."""
        return len(self.senders)


@struct.dataclass
class Neighbors:
    """The same edges in rows of m slots per atom; the last slots of a row may be empty.

    Attributes:
      senders: (n, m) int32; an empty slot names the row's own atom.
      shifts: (n, m, 3) int32, lattice vectors added to the sender's position.
      mask: (n, m) bool, False for empty slots. A list with a skin holds pairs beyond the cutoff too.
      reverse: (n, m) int32, the slot of the opposite edge in the sender's row:
        ``senders[senders[i, k], reverse[i, k]] == i``. An empty slot names itself.
      block: b > 0 says that consecutive blocks of b atoms see each other and nobody else, without shifts:
        m == b, ``senders[i, k] == (i // b) * b + k`` and ``reverse[i, k] == i % b`` in every slot, the
        masked ones included.
    """

    senders: Array | np.ndarray
    shifts: Array | np.ndarray
    mask: Array | np.ndarray
    reverse: Array | np.ndarray
    block: int = struct.field(pytree_node=False, default=0)


def edge_list(structure: Structure, cutoff: float, *, method: Method = "auto") -> EdgeList:
    """Every pair of atoms at most ``cutoff`` apart, all periodic images included.

    An atom sees its own images where a cell is small, and never itself. Positions are taken as they are:
    an atom outside the cell gets the shifts that belong to where it is.

    Args:
      structure: atoms; molecules, slabs, and cells of any shape and size.
      cutoff: A, inclusive: ``d <= cutoff`` in float64.
      method: "vesin" takes time in proportion to the atoms; "dense" tries every pair and image; "auto" is
        vesin where it is installed: as fast from 3 atoms on, 1.8 times at 64, 45 times at 4,096.

    Returns:
      The edges, on the host.

    Raises:
      ValueError: positions or a cell in which no distance can be measured, or more pairs than the dense
        search accepts.

    Example:
      >>> pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 5.0]]), None, np.zeros(3, bool))
      >>> edge_list(pair, 5.0).senders
      array([1, 0], dtype=int32)
    """
    check_geometry(structure)
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"cutoff must be a positive number of A, not {cutoff!r}")
    if method not in ("auto", "vesin", "dense"):
        raise ValueError(f"no method {method!r}; choose one of 'auto', 'vesin' and 'dense'")
    cell = periodic_cell(structure)
    images = _images(cell, structure.pbc, cutoff)
    span = _open_span(structure, cell)
    if method == "auto":
        many = structure.num_atoms**2 * math.prod(2 * count + 1 for count in images) > DENSE_LIMIT
        near = span <= _VESIN_SPAN * cutoff
        method = "vesin" if (near or many) and importlib.util.find_spec("vesin") else "dense"
    if method == "vesin":
        candidates = _vesin_candidates(structure, cell, cutoff, span)
    else:
        candidates = _dense_candidates(structure, cell, cutoff, images)
    return _within(structure.positions, cell, cutoff, candidates)


def _images(cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> list[int]:
    """How many lattice vectors around the nearest image of an atom may lie within the cutoff."""
    # Nearest in fractional coordinates: at most half a cell away along each axis.
    reach = np.floor(cutoff / heights(cell) * (1 + 1e-9) + 0.5)
    return [int(count) if repeats else 0 for count, repeats in zip(reach, pbc, strict=True)]


def _open_span(structure: Structure, cell: np.ndarray) -> float:
    """Largest extent of the atoms along the axes that do not repeat."""
    if structure.pbc.all() or not structure.num_atoms:
        return 0.0
    return float(np.ptp(structure.positions @ cell[~structure.pbc].T, axis=0).max())


Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]


def _vesin_candidates(structure: Structure, cell: np.ndarray, cutoff: float, span: float) -> Candidates:
    """Receivers, senders and shifts of all pairs within a little more than the cutoff."""
    try:
        from vesin import NeighborList
    except ImportError as error:
        raise ValueError(
            'method="vesin" needs vesin: pip install "sparsejax[force-field]", or method="dense"'
        ) from error
    # vesin has pairs with d < cutoff, compares in its own rounding, and cannot do with tiny cutoffs.
    enough = max(cutoff * (1 + 1e-9), _LEAST_VESIN_CUTOFF)
    if span > _VESIN_SPAN * enough:
        raise ValueError(f"structure: its atoms are {span:.3g} A apart, too far for vesin; has it exploded?")
    finder = NeighborList(cutoff=enough, full_list=True)
    positions = np.asarray(structure.positions, np.float64)  # vesin wants the type of the cell
    return finder.compute(positions, cell, structure.pbc, quantities="ijS")


def _dense_candidates(structure: Structure, cell: np.ndarray, cutoff: float, images: list[int]) -> Candidates:
    """The same by trying every pair with every image, a block of receivers at a time."""
    n, positions = structure.num_atoms, structure.positions
    around = np.stack(np.meshgrid(*(range(-c, c + 1) for c in images), indexing="ij"), -1).reshape(-1, 3)
    if n * n * len(around) > DENSE_LIMIT:
        raise ValueError(
            f"structure: {n} atoms with {len(around)} images each are too many to try all pairs; install "
            'vesin: pip install "sparsejax[force-field]"'
        )
    fractional = positions @ np.linalg.inv(cell)
    rows = max(1, _DENSE_CHUNK // max(1, n * len(around)))
    found = []
    for start in range(0, n, rows):
        apart = fractional[None] - fractional[start : start + rows, None]
        nearest = np.where(structure.pbc, -np.rint(apart), 0.0)
        # d2 (receivers, senders, images); a hair wider than the cutoff, which `_within` applies exactly
        close = ((apart + nearest) @ cell)[:, :, None] + around @ cell
        receivers, senders, image = np.nonzero((close**2).sum(-1) <= (cutoff * (1 + 1e-9) + 1e-9) ** 2)
        found.append((receivers + start, senders, nearest[receivers, senders] + around[image]))
    receivers, senders, shifts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    distinct = (receivers != senders) | shifts.any(1)
    return receivers[distinct], senders[distinct], shifts[distinct]


def _within(positions: np.ndarray, cell: np.ndarray, cutoff: float, candidates: Candidates) -> EdgeList:
    """Keep the pairs within the cutoff, in order."""
    receivers, senders, shifts = candidates
    # Term by term, so that an edge and its opposite round alike: a symmetric list depends on it.
    vectors = positions[senders] - positions[receivers]
    offsets = shifts[:, :1] * cell[0] + shifts[:, 1:2] * cell[1] + shifts[:, 2:] * cell[2]
    x, y, z = (vectors + offsets).T
    keep = np.flatnonzero(np.sqrt(x * x + y * y + z * z) <= cutoff)
    receivers, senders, shifts = receivers[keep], senders[keep], shifts[keep]
    order = _order(receivers, senders, shifts)
    return EdgeList(
        senders[order].astype(np.int32), receivers[order].astype(np.int32), shifts[order].astype(np.int32)
    )


def _order(first: np.ndarray, second: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Permutation that sorts by the first atom, then the second, then the shift."""
    a, b, c = shifts.T
    return np.lexsort((c, b, a, second, first))


def rows_from_edges(edges: EdgeList, num_atoms: int, *, slots: int | None = None) -> Neighbors:
    """Arrange edges in rows, with the slot of every opposite edge.

    Args:
      edges: sorted as `edge_list` sorts them, and symmetric.
      num_atoms: rows n.
      slots: per row; as many as the fullest row needs where None, and at least 1.

    Returns:
      Rows of numpy arrays.

    Raises:
      ValueError: a row needs more slots, or an edge lacks its opposite.

    Example:
      >>> pair = EdgeList(np.array([1, 0]), np.array([0, 1]), np.zeros((2, 3), np.int32))
      >>> rows_from_edges(pair, 3, slots=2).mask.tolist()
      [[True, False], [True, False], [False, False]]
    """
    senders, receivers, shifts = edges
    degrees = np.bincount(receivers, minlength=num_atoms)
    needed = max(1, int(degrees.max(initial=0)))
    slots = needed if slots is None else slots
    if slots < needed:
        raise ValueError(
            f"an atom has {needed} neighbours, more than slots={slots}; give slots={needed} or more"
        )
    slot = np.arange(edges.num_edges) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    opposite = np.empty(edges.num_edges, np.int64)
    opposite[_order(senders, receivers, -shifts)] = np.arange(edges.num_edges)
    if (senders[opposite] != receivers).any() or (shifts[opposite] != -shifts).any():
        raise ValueError("the edges are not symmetric and sorted; take them from edge_list")
    rows = np.arange(num_atoms, dtype=np.int32)[:, None]
    row_senders, mask = np.repeat(rows, slots, 1), np.zeros((num_atoms, slots), bool)
    row_shifts = np.zeros((num_atoms, slots, 3), np.int32)
    reverse = np.repeat(np.arange(slots, dtype=np.int32)[None], num_atoms, 0)
    row_senders[receivers, slot] = senders
    row_shifts[receivers, slot] = shifts
    reverse[receivers, slot] = slot[opposite]
    mask[receivers, slot] = True
    return Neighbors(row_senders, row_shifts, mask, reverse)


def all_pairs(num_graphs: int, atoms_per_graph: int, mask: Any = None) -> Neighbors:
    """Rows in which every atom of a molecule sees all others of it: no search, and no images.

    Args:
      num_graphs: molecules, each padded to the same number of atoms.
      atoms_per_graph: that number b.
      mask: (num_graphs, b) or (num_graphs * b,) bool, False for padded atoms; may be traced.

    Returns:
      Rows with ``block`` b; n = num_graphs * b. Nobody sees itself or a padded atom.

    Example:
      >>> all_pairs(1, 3).mask.sum()
      np.int64(6)
    """
    n, b = num_graphs * atoms_per_graph, atoms_per_graph
    atom, slot = np.arange(n, dtype=np.int32)[:, None], np.arange(b, dtype=np.int32)
    senders = atom // b * b + slot
    pairs = senders != atom
    if mask is not None:
        real = mask.reshape(n)
        pairs = pairs & real[:, None] & real[senders]
    reverse = np.broadcast_to(atom % b, (n, b)).copy()
    return Neighbors(senders, np.zeros((n, b, 3), np.int32), pairs, reverse, block=b)
