"""Edges outside jit: vesin, the dense search, counts of the originals, rows and their opposites."""

from __future__ import annotations

import builtins
import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.models.force_field import neighbors
from sparsejax.models.force_field.neighbors import EdgeList, all_pairs, edge_list, rows_from_edges
from sparsejax.models.force_field.structure import Structure, heights, periodic_cell
from tests import golden

KINDS = {
    "bulk": (True, True, True),
    "slab": (True, False, True),
    "wire": (False, True, False),
    "open": (False,) * 3,
}
needs_vesin = pytest.mark.skipif(importlib.util.find_spec("vesin") is None, reason="vesin is not installed")


def random_structure(seed: int) -> tuple[Structure, float]:
    """A cell from far smaller than the cutoff to larger, straight or skewed, and atoms in and out of it."""
    rng = np.random.default_rng(seed)
    pbc = np.array(list(KINDS.values())[seed % len(KINDS)])
    cell = np.diag(rng.uniform(1.8, 9.0, 3))
    if seed % 3:
        cell = cell + rng.uniform(-2.5, 2.5, (3, 3))
    cell[~pbc] *= rng.choice([0.0, 1.0])  # a slab may have a third vector or not
    n = int(rng.integers(1, 13))
    structure = Structure(np.full(n, 6, np.int32), np.zeros((n, 3)), cell, pbc)
    full = periodic_cell(structure)
    spread = np.where(pbc, 3.0, 8.0 / heights(full))  # atoms of a run wander through several cells
    structure = structure._replace(positions=rng.uniform(-0.5, 0.5, (n, 3)) * spread @ full)
    if abs(np.linalg.det(full)) < 0.05 * np.prod(np.linalg.norm(full, axis=1)):
        return random_structure(seed + 10_000)  # nearly flat: millions of images
    return structure, float(rng.uniform(2.0, 7.0))


def lengths(structure: Structure, edges: EdgeList) -> np.ndarray:
    cell = np.zeros((3, 3)) if structure.cell is None else structure.cell
    vectors = structure.positions[edges.senders] + edges.shifts @ cell - structure.positions[edges.receivers]
    return np.linalg.norm(vectors, axis=1)


def assert_same(first: EdgeList, second: EdgeList) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int32


@needs_vesin
def test_vesin_and_the_dense_search_agree_on_500_random_cells():
    total, own_images = 0, 0
    for seed in range(500):
        structure, cutoff = random_structure(seed)
        found = edge_list(structure, cutoff, method="vesin")
        assert_same(found, edge_list(structure, cutoff, method="dense"))
        total += found.num_edges
        own_images += int((found.senders == found.receivers).sum())
    assert total > 50_000
    assert own_images > 2_000


@pytest.mark.parametrize("method", ["vesin", "dense"])
def test_positions_of_dynamics_are_float32(method):
    pytest.importorskip("vesin")
    wide, cutoff = random_structure(3)
    narrow = wide._replace(positions=wide.positions.astype(np.float32))
    again = narrow._replace(positions=narrow.positions.astype(np.float64))
    assert_same(edge_list(narrow, cutoff, method=method), edge_list(again, cutoff, method=method))


def test_the_dense_search_agrees_with_ase():
    neighborlist = pytest.importorskip("ase.neighborlist")
    for seed in range(40):
        structure, cutoff = random_structure(seed)
        ours = edge_list(structure, cutoff, method="dense")
        full = periodic_cell(structure)
        theirs = neighborlist.primitive_neighbor_list(
            "ijS", structure.pbc, full, structure.positions, cutoff, self_interaction=False
        )
        expected = {
            (*pair, *shift) for *pair, shift in zip(theirs[0], theirs[1], theirs[2].tolist(), strict=True)
        }
        assert {
            (r, s, *x) for r, s, x in zip(ours.receivers, ours.senders, ours.shifts.tolist(), strict=True)
        } == (expected)
        assert ours.num_edges == len(expected)


@pytest.mark.golden()
@pytest.mark.parametrize("method", ["auto", "dense"])
@pytest.mark.parametrize(
    ("file", "system", "cutoff"),
    [
        ("systems_tiny_public", "cu_1atom_cell", 5.0),
        ("systems_tiny_public", "nacl_2x2x2", 5.0),
        ("systems_tiny_public", "si_diamond_2x2x2", 5.0),
        ("random_a", "si", 4.0),
        ("random_b", "si", 5.0),
    ],
)
def test_edges_of_periodic_cells_are_as_many_as_the_originals_counted(file, system, cutoff, method):
    arrays = golden.arrays("force_field", file)
    species, positions = arrays[f"{system}/z"], arrays[f"{system}/pos"]
    structure = Structure(species, positions, arrays[f"{system}/cell"], np.ones(3, bool))
    assert edge_list(structure, cutoff, method=method).num_edges == int(arrays[f"{system}/n_edges_pbc"])


@pytest.mark.parametrize("method", ["auto", "dense"])
def test_the_cutoff_is_inclusive(method):
    for distance, edges in ((4.999, 2), (5.0, 2), (5.001, 0)):
        pair = Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, distance]]), None, np.zeros(3, bool))
        assert edge_list(pair, 5.0, method=method).num_edges == edges
    lattice = Structure(np.array([6]), np.full((1, 3), 0.3), np.eye(3) * 5.0, np.ones(3, bool))
    assert edge_list(lattice, 5.0, method=method).num_edges == 6
    assert edge_list(lattice, 5.0 - 1e-12, method=method).num_edges == 0


@given(st.integers(0, 100_000))
def test_lists_are_sorted_symmetric_and_within_the_cutoff(seed):
    structure, cutoff = random_structure(seed)
    edges = edge_list(structure, cutoff)
    assert (lengths(structure, edges) <= cutoff + 1e-9).all()
    keys = np.column_stack((edges.receivers, edges.senders, edges.shifts)).tolist()
    assert keys == sorted(keys)
    forward = {tuple(key) for key in keys}
    assert len(forward) == edges.num_edges
    assert {(s, r, -a, -b, -c) for r, s, a, b, c in forward} == forward


@given(st.integers(0, 100_000), st.integers(0, 3))
def test_rows_hold_the_edges_and_the_slots_of_their_opposites(seed, spare):
    structure, cutoff = random_structure(seed)
    edges, n = edge_list(structure, cutoff), structure.num_atoms
    degree = max(1, int(np.bincount(edges.receivers, minlength=n).max()))
    rows = rows_from_edges(edges, n, slots=degree + spare)
    atom, slot = np.nonzero(rows.mask)
    assert_same(EdgeList(rows.senders[atom, slot], atom.astype(np.int32), rows.shifts[atom, slot]), edges)
    other, back = rows.senders[atom, slot], rows.reverse[atom, slot]
    np.testing.assert_array_equal(rows.senders[other, back], atom)
    np.testing.assert_array_equal(rows.shifts[other, back], -rows.shifts[atom, slot])
    np.testing.assert_array_equal(rows.reverse[other, back], slot)
    assert rows.mask[other, back].all()
    atom, slot = np.nonzero(~rows.mask)
    np.testing.assert_array_equal(rows.senders[atom, slot], atom)
    np.testing.assert_array_equal(rows.reverse[atom, slot], slot)
    assert not rows.shifts[atom, slot].any()


def test_rows_that_are_too_short_are_refused_with_the_number_needed():
    chain = Structure(np.full(3, 6), np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), None, np.zeros(3, bool))
    edges = edge_list(chain, 1.5)
    with pytest.raises(ValueError, match="has 2 neighbours, more than slots=1; give slots=2 or more"):
        rows_from_edges(edges, 3, slots=1)
    assert rows_from_edges(edges, 3).senders.shape[1] == 2
    with pytest.raises(ValueError, match="not symmetric and sorted"):
        rows_from_edges(EdgeList(*(part[1:] for part in edges)), 3)


def test_an_atom_alone_has_one_empty_slot():
    alone = Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool))
    rows = rows_from_edges(edge_list(alone, 5.0), 1)
    assert rows.mask.tolist() == [[False]]
    assert rows.senders.tolist() == rows.reverse.tolist() == [[0]]


def test_all_pairs_are_the_edges_of_molecules_within_reach():
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(12, 3))
    mask = np.ones((3, 4), bool)
    mask[2, 3] = False
    rows = all_pairs(3, 4, mask)
    assert rows.block == rows.senders.shape[1] == 4
    for graph, real in enumerate(mask.sum(1)):
        atoms = positions[4 * graph : 4 * graph + real]
        edges = edge_list(Structure(np.full(real, 6), atoms, None, np.zeros(3, bool)), 50.0)
        own = slice(4 * graph, 4 * graph + real)
        atom, slot = np.nonzero(rows.mask[own])
        np.testing.assert_array_equal(rows.senders[own][atom, slot], edges.senders + 4 * graph)
        np.testing.assert_array_equal(atom, edges.receivers)
    assert rows.mask.sum() == 12 + 12 + 6
    assert not rows.mask[11].any()
    atom = np.arange(12)[:, None]
    np.testing.assert_array_equal(rows.senders[rows.senders, rows.reverse], np.broadcast_to(atom, (12, 4)))
    np.testing.assert_array_equal(all_pairs(3, 4, mask.ravel()).mask, rows.mask)


def test_atoms_that_have_flown_apart_are_found_by_the_dense_search_or_refused():
    positions = np.array([[0, 0, 0], [0, 0, 1.0], [1e9, 0, 0]])
    gone = Structure(np.full(3, 6), positions, None, np.zeros(3, bool))
    assert edge_list(gone, 5.0).num_edges == 2
    with pytest.raises(ValueError, match="atoms are 1e.09 A apart, too far for vesin; has it exploded"):
        edge_list(gone, 5.0, method="vesin")


def test_without_vesin_small_systems_work_and_large_ones_say_what_to_install(monkeypatch):
    real_import, real_find = builtins.__import__, importlib.util.find_spec

    def no_import(name, *args, **kwargs):
        if name == "vesin":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_import)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "vesin" else real_find(name)
    )
    structure, cutoff = random_structure(4)
    assert_same(edge_list(structure, cutoff), edge_list(structure, cutoff, method="dense"))
    with pytest.raises(ValueError, match=r'needs vesin: pip install "sparsejax\[force-field\]"'):
        edge_list(structure, cutoff, method="vesin")
    monkeypatch.setattr(neighbors, "DENSE_LIMIT", 10)
    crowd = Structure(np.full(4, 6), np.eye(4)[:, :3], None, np.zeros(3, bool))
    with pytest.raises(
        ValueError, match="4 atoms with 1 images each are too many to try all pairs; install vesin"
    ):
        edge_list(crowd, cutoff)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cutoff_must_be_a_length(cutoff):
    structure, _ = random_structure(0)
    with pytest.raises(ValueError, match="cutoff must be a positive number of A"):
        edge_list(structure, cutoff)


def test_broken_positions_never_reach_the_search():
    structure, cutoff = random_structure(0)
    structure.positions[0, 1] = np.nan
    with pytest.raises(ValueError, match="atom 0 has the y position nan"):
        edge_list(structure, cutoff)
    with pytest.raises(ValueError, match="no method 'kd-tree'; choose one of"):
        edge_list(random_structure(0)[0], cutoff, method="kd-tree")
