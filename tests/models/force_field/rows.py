"""Rows of neighbours told as sets of edges, and checks that every kind of list must pass."""

from __future__ import annotations

import numpy as np

from sparsejax.models.force_field.neighbors import EdgeList, edge_list
from sparsejax.models.force_field.structure import Structure

Edges = set[tuple[int, ...]]


def edges_of_list(edges: EdgeList) -> Edges:
    """(receiver, sender, shift) of every edge."""
    return set(map(tuple, np.column_stack((edges.receivers, edges.senders, edges.shifts)).tolist()))


def edges_of_rows(senders, shifts, mask) -> Edges:
    """The same of rows; no edge may be there twice."""
    senders, shifts, mask = map(np.asarray, (senders, shifts, mask))
    receivers, slots = np.nonzero(mask)
    edges = edges_of_list(EdgeList(senders[receivers, slots], receivers, shifts[receivers, slots]))
    assert len(edges) == len(receivers)
    return edges


def assert_opposites(senders, shifts, mask, reverse) -> None:
    """Every edge knows the slot of its opposite; empty slots name their own row and slot."""
    senders, shifts, mask, reverse = map(np.asarray, (senders, shifts, mask, reverse))
    atom, slot = np.nonzero(mask)
    other, back = senders[atom, slot], reverse[atom, slot]
    assert mask[other, back].all()
    np.testing.assert_array_equal(senders[other, back], atom)
    np.testing.assert_array_equal(reverse[other, back], slot)
    np.testing.assert_array_equal(shifts[other, back], -shifts[atom, slot])
    atom, slot = np.nonzero(~mask)
    np.testing.assert_array_equal(senders[atom, slot], atom)
    np.testing.assert_array_equal(reverse[atom, slot], slot)
    assert not shifts[atom, slot].any()


def assert_complete(rows: Edges, structure: Structure, cutoff: float, reach: float) -> int:
    """The rows hold every edge within the cutoff, and none beyond reach; returns how many within."""
    needed = edges_of_list(edge_list(structure, cutoff))
    assert needed <= rows
    assert rows <= edges_of_list(edge_list(structure, reach))
    return len(needed)


def structure_of(positions, cell, pbc) -> Structure:
    """Atoms without names, in float64."""
    positions = np.asarray(positions, np.float64)
    cell = None if cell is None else np.asarray(cell, np.float64)
    return Structure(np.ones(len(positions), np.int32), positions, cell, np.array(pbc))
