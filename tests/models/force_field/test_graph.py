"""Padded batches: what is in them, what pads them, and how few programs they need."""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.models.force_field.graph import (
    Capacity,
    GrowingCapacity,
    batch_graphs,
    graph_of_edge,
    graph_of_node,
)
from sparsejax.models.force_field.neighbors import edge_list
from sparsejax.models.force_field.structure import Structure
from tests.compilations import compilations

CRYSTAL = Structure(
    np.array([11, 17], np.int32), np.array([[0.1, 0, 0], [2.0, 2.1, 1.9]]), np.eye(3) * 4.0, np.ones(3, bool)
)


def molecule(rng: np.random.Generator, n: int) -> Structure:
    """Atoms about as dense as in an organic molecule."""
    positions = rng.uniform(0, 2.2 * n ** (1 / 3), (n, 3))
    return Structure(rng.choice([1, 6, 8], n).astype(np.int32), positions, None, np.zeros(3, bool))


@jax.jit
def lengths(graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array]:
    """Distances of all edges, and the sum of those of every graph."""
    cells = graph.globals["cell"][graph_of_edge(graph)]
    offsets = jnp.einsum("es,esx->ex", graph.edges["shift"].astype(cells.dtype), cells)
    positions = graph.nodes["positions"]
    distances = jnp.linalg.norm(positions[graph.senders] - positions[graph.receivers] + offsets, axis=1)
    per_node = jax.ops.segment_sum(distances, graph.receivers, len(positions), indices_are_sorted=True)
    return distances, jax.ops.segment_sum(per_node, graph_of_node(graph), len(graph.n_node))


def test_a_batch_holds_what_its_structures_hold():
    rng = np.random.default_rng(0)
    structures = [molecule(rng, 5), CRYSTAL, molecule(rng, 1)]
    capacity = Capacity(16, 256, 6)
    graph = batch_graphs(structures, 5.0, capacity)
    edges = [edge_list(structure, 5.0) for structure in structures]
    assert graph.n_node.tolist() == [5, 2, 1, 8, 0, 0]
    assert graph.n_edge.tolist()[:3] == [one.num_edges for one in edges]
    assert graph.n_node.sum() == 16
    assert graph.n_edge.sum() == 256
    assert graph.globals["periodic"].tolist() == [False, True, False, False, False, False]
    assert graph.globals["mask"].tolist() == [True] * 3 + [False] * 3
    assert graph.nodes["mask"].sum() == 8
    assert graph.edges["mask"].sum() == sum(one.num_edges for one in edges)
    np.testing.assert_array_equal(graph.globals["cell"][1], CRYSTAL.cell)
    np.testing.assert_array_equal(
        graph.globals["cell"][[0, 2, 3, 4, 5]], np.broadcast_to(np.eye(3), (5, 3, 3))
    )
    assert not graph.globals["strain"].any()
    np.testing.assert_array_equal(graph.nodes["species"][5:7], [11, 17])
    own = slice(edges[0].num_edges, edges[0].num_edges + edges[1].num_edges)
    np.testing.assert_array_equal(graph.senders[own] - 5, edges[1].senders)
    np.testing.assert_array_equal(graph.edges["shift"][own], edges[1].shifts)
    assert (np.diff(graph.receivers) >= 0).all()
    for array in (graph.senders, graph.receivers, graph.n_node, graph.edges["shift"]):
        assert array.dtype == np.int32
    assert graph.nodes["positions"].dtype == graph.globals["cell"].dtype == np.float32


@settings(max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_padding_is_safe_and_changes_nothing(sizes, seed):
    rng = np.random.default_rng(seed)
    structures = [molecule(rng, n) for n in sizes] + [CRYSTAL]
    graph = batch_graphs(structures, 5.0, Capacity(32, 512, 8))
    distances, sums = map(np.asarray, lengths(graph))
    assert (distances[~graph.edges["mask"]] == 1.0).all()
    assert (distances[graph.edges["mask"]] <= 5.0 + 1e-5).all()
    padded = np.flatnonzero(~graph.nodes["mask"])
    assert np.isin(graph.senders[~graph.edges["mask"]], padded).all()
    assert np.isin(graph.receivers[~graph.edges["mask"]], padded).all()
    for structure, total in zip(structures, sums, strict=False):
        edges = edge_list(structure, 5.0)
        cell = np.eye(3) if structure.cell is None else structure.cell
        x = structure.positions
        vectors = x[edges.senders] - x[edges.receivers] + edges.shifts @ cell
        assert total == pytest.approx(np.linalg.norm(vectors, axis=1).sum(), rel=1e-5)


def test_jraph_takes_the_padding_away_again():
    rng = np.random.default_rng(3)
    structures = [molecule(rng, 4), CRYSTAL]
    bare = jraph.unpad_with_graphs(batch_graphs(structures, 5.0, Capacity(20, 300, 5)))
    exact = batch_graphs(structures, 5.0)
    assert bare.n_node.tolist() == [4, 2]
    assert bare.nodes["mask"].all() and bare.edges["mask"].all()
    np.testing.assert_array_equal(bare.senders, exact.senders[: len(bare.senders)])
    assert len(exact.nodes["mask"]) == 7
    assert exact.n_edge.tolist()[-1] == 0


def test_owners_follow_the_counts_in_jit():
    graph = batch_graphs([CRYSTAL, CRYSTAL], 3.0, Capacity(8, 40, 4), np.float64)
    owners = jax.jit(lambda graph: (graph_of_node(graph), graph_of_edge(graph)))(graph)
    np.testing.assert_array_equal(owners[0], np.repeat(np.arange(4), graph.n_node))
    np.testing.assert_array_equal(owners[1], np.repeat(np.arange(4), graph.n_edge))
    assert graph.nodes["positions"].dtype == np.float64


def test_200_molecules_of_different_sizes_compile_at_most_8_programs():
    rng = np.random.default_rng(7)
    sizes = np.sort(np.arange(200) % 70 + 1)  # from small to large asks for the most steps
    capacity, run = GrowingCapacity(), jax.jit(lambda graph: lengths(graph)[1])
    with compilations() as counts:
        for n in sizes:
            run(batch_graphs([molecule(rng, int(n))], 5.0, capacity))
    # The inner function is part of the program that calls it.
    assert 2 <= counts["<lambda>"] <= 8
    assert counts.keys() == {"<lambda>"}


def test_capacities_grow_by_a_factor_never_shrink_and_tell_the_log(caplog):
    capacity = GrowingCapacity(Capacity(8, 64, 2))
    with caplog.at_level(logging.INFO, "sparsejax.force_field"):
        assert capacity.fit(Capacity(9, 60, 2)) == (16, 64, 2)
        assert capacity.fit(Capacity(3, 500, 9)) == (16, 500, 9)
        assert capacity.fit(Capacity(1, 1, 2)) == (16, 500, 9)
    assert [record.getMessage() for record in caplog.records] == [
        "capacity grows from (8, 64, 2) to (16, 64, 2); the next call compiles",
        "capacity grows from (16, 64, 2) to (16, 500, 9); the next call compiles",
    ]
    with pytest.raises(ValueError, match=r"factor must be larger than 1, not 1\.0"):
        GrowingCapacity(factor=1.0)


def test_batches_that_do_not_fit_and_empty_ones_are_refused():
    with pytest.raises(ValueError, match=r"needs \(3, 28, 2\) nodes, edges and graphs.*capacity \(2, 9, 2\)"):
        batch_graphs([CRYSTAL], 4.0, Capacity(2, 9, 2))
    with pytest.raises(ValueError, match="at least one structure"):
        batch_graphs([], 4.0)


def test_known_edges_are_not_searched_again(monkeypatch):
    edges = [edge_list(CRYSTAL, 4.0)]
    monkeypatch.setattr("sparsejax.models.force_field.graph.edge_list", None)
    assert batch_graphs([CRYSTAL], 4.0, edges=edges).n_edge[0] == edges[0].num_edges
