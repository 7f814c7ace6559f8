"""Every backend computes the same sums, with the same derivatives up to the second."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.edge_conv import EdgeLayout, Edges, TableFilter, edge_conv, pallas_gpu
from tests.ops.edge_conv import problems

# (filter, whether vectors come in, backend, dtype, highest derivative)
# The kernels' float64 is that of the interpreter: here for rounding that hides no mistake.
CASES = [
    ("table", True, "xla", jnp.float32, 2),
    ("table", True, "pallas_tpu", jnp.float32, 2),
    ("table", True, "pallas_gpu", jnp.float32, 0),
    ("mlp", True, "xla", jnp.float64, 2),
    ("mlp", True, "pallas_gpu", jnp.float64, 2),
    ("mlp", False, "xla", jnp.float32, 1),
    ("mlp", False, "pallas_gpu", jnp.float32, 1),
    ("mlp", False, "pallas_tpu", jnp.float32, 1),
]
ORDERS = (problems.sums, problems.gradient, problems.second_derivative)
TOLERANCE = {jnp.float32: 1e-5, jnp.float64: 1e-12}


@pytest.fixture(autouse=True)
def _several_tiles(monkeypatch):
    """The slots of a node in three steps of the GPU's kernel, the last of them half empty."""
    monkeypatch.setattr(pallas_gpu, "TILE", 2 * pallas_gpu.LEAST)


@lru_cache
def _layouts():
    return {
        "every kind of pair": problems.layout_of(),
        "slots in disorder": problems.layout_of(problems.PAIRS[::-1], seed=1),
        "no pair": problems.layout_of(()),
    }


@lru_cache
def _program(kind, vectors, backend, dtype, order):
    """Sums and derivatives of given inputs and any layout, and inputs to give."""
    with jax.enable_x64(dtype == jnp.float64):
        given = jax.tree.map(lambda leaf: leaf.astype(dtype), problems.inputs(kind, vectors=vectors))
        run = partial(ORDERS[order], convolve=partial(edge_conv, backend=backend))
        return problems.compiled(run, given, problems.layout_of()), given


@lru_cache
def _truth(kind, vectors):
    run, given = _program(kind, vectors, "reference", jnp.float64, 2 if vectors else 1)
    with jax.enable_x64(True):
        return {name: run(given, layout) for name, layout in _layouts().items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}-{case[4]}")
def test_sums_and_derivatives_are_those_of_the_reference(case):
    kind, vectors, backend, dtype, order = case
    run, given = _program(kind, vectors, backend, dtype, order)
    with jax.enable_x64(dtype == jnp.float64):
        found = {name: run(given, layout) for name, layout in _layouts().items()}
    for name, results in found.items():
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(results))
        problems.assert_close(results, _truth(kind, vectors)[name][: order + 1], TOLERANCE[dtype])
    assert not any(leaf.any() for leaf in jax.tree.leaves(found["no pair"]))


@pytest.mark.parametrize("name", ["every kind of pair", "slots in disorder"])
def test_the_reference_is_a_sum_over_the_slots_of_each_node(name):
    given, layout = problems.inputs("mlp"), _layouts()[name]
    scalars, vectors = np.asarray(given.scalars), np.asarray(given.vectors)
    edges = jax.tree.map(np.asarray, problems.edges_of(given.positions, layout))
    parts = problems.values(given.radial_filter, np.asarray(edges.distances, np.float64))
    of_scalars, of_vectors = np.zeros_like(scalars), np.zeros_like(vectors)
    for node, slot in np.argwhere(edges.mask[layout.of_slot]):
        pair, neighbour = layout.of_slot[node, slot], layout.senders[node, slot]
        toward = edges.directions[pair] * (1 if layout.leads[node, slot] else -1)
        of_scalars[node] += scalars[neighbour] * parts[0][pair]
        of_vectors[node] += vectors[neighbour] * parts[1][pair] + toward[:, None] * parts[2][pair]
    assert of_scalars[:5].all() and not of_scalars[5:].any()
    problems.assert_close(_truth("mlp", True)[name][0], (of_scalars, of_vectors), 1e-6)


def test_edges_in_any_order_are_summed_like_their_pairs():
    layout = problems.layout_of()
    order = np.random.default_rng(0).permutation(layout.senders.size)
    pair, leads, senders = (
        jnp.asarray(part).reshape(-1)[order] for part in (layout.of_slot, layout.leads, layout.senders)
    )
    receivers = jnp.asarray(order // problems.SLOTS)

    def convolve(scalars, vectors, edges, radial_filter, _):
        directions = jnp.where(leads, 1, -1)[:, None] * edges.directions[pair]
        directed = Edges(edges.distances[pair], directions, edges.mask[pair])
        return edge_conv(scalars, vectors, directed, radial_filter, EdgeLayout(senders, receivers))

    given, run = problems.inputs("mlp", vectors=False), partial(problems.sums, convolve=convolve)
    found = problems.compiled(run, given, layout)(given, layout)
    problems.assert_close(found[0], _truth("mlp", False)["every kind of pair"][0], 1e-6)


@pytest.mark.parametrize("backend", ["reference", "xla", "pallas_gpu", "pallas_tpu"])
def test_a_position_that_is_not_a_number_reaches_all_its_neighbours(backend):
    run, given = _program("mlp", False, backend, jnp.float64 if backend == "reference" else jnp.float32, 1)
    with jax.enable_x64(backend == "reference"):
        broken = given._replace(positions=given.positions.at[3].set(jnp.nan))
        (_, of_vectors), _ = run(broken, problems.layout_of())
    assert np.isnan(of_vectors).any((1, 2)).tolist() == [False, True, True, True, True, False, False]


def test_what_cannot_be_is_refused():
    edges = Edges(jnp.ones(2), jnp.zeros((2, 3)), jnp.ones(2, bool))
    table = TableFilter(((jnp.ones((1, 1)),) * 4,) * 2, cutoff=5.0)
    pair = EdgeLayout(jnp.array([1, 0]), jnp.array([0, 1]))
    with pytest.raises(ValueError, match="edge_conv has no backend 'cuda'; choose one of .*'pallas'"):
        edge_conv(jnp.ones((2, 1)), None, edges, table, pair, backend="cuda")
    with pytest.raises(ValueError, match="takes pairs of neighbours; use 'xla' for edges"):
        edge_conv(jnp.ones((2, 1)), None, edges, table, pair, backend="pallas")
