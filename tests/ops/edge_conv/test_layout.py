"""Pairs of rows against a search through all slots; what goes to the ends of pairs comes back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.ops.edge_conv import collect, ends, pairs_of_blocks, pairs_of_rows
from sparsejax.ops.edge_conv.layout import zeros_of
from tests.ops.edge_conv import problems
from tests.ops.edge_conv.problems import NODES, SLOTS


@st.composite
def _pairs(draw):
    """Pairs that fit into the slots: nodes that meet several times, and themselves."""
    free, found = dict.fromkeys(range(NODES), SLOTS), []
    node = st.integers(0, NODES - 1)
    for first, second in draw(st.lists(st.tuples(node, node), max_size=NODES * SLOTS // 2)):
        needed = {first: 2} if first == second else {first: 1, second: 1}
        if all(free[node] >= count for node, count in needed.items()):
            found.append((first, second))
            for node_, count in needed.items():
                free[node_] -= count
    return found


def _assert_pairs(layout, rows):
    """Every edge finds its pair, and leads if it comes before its opposite; every pair is found."""
    slots = rows.mask.shape[1]
    edges = [(int(node), int(slot)) for node, slot in np.argwhere(rows.mask)]
    for edge in edges:
        other, pair = (int(rows.senders[edge]), int(rows.reverse[edge])), layout.of_slot[edge]
        assert layout.real[pair] and layout.of_slot[other] == pair and layout.leads[edge] == (edge < other)
        if edge < other:
            assert (layout.first[pair], layout.second[pair]) == (edge[0], other[0])
            assert layout.slot_of_pair[pair] == edge[0] * slots + edge[1]
    assert 2 * layout.real.sum() == 2 * len(set(layout.of_slot[rows.mask].tolist())) == len(edges)
    assert not layout.real[-1] and not layout.real[layout.of_slot[~rows.mask]].any()
    np.testing.assert_array_equal(layout.senders, rows.senders)


@given(_pairs(), st.integers(0, 2**31))
@settings(max_examples=50)
def test_pairs_of_rows(pairs, seed):
    rows = problems.rows_of(pairs, NODES, SLOTS, seed)
    layout = jax.tree.map(np.asarray, problems.layout_of(pairs, seed))
    _assert_pairs(layout, rows)
    assert layout.real.tolist() == [number < len(pairs) for number in range(NODES * SLOTS // 2 + 1)]
    assert not layout.leads[~rows.mask].any()


def test_atoms_without_slots_have_no_pairs():
    none = jnp.zeros((3, 0), jnp.int32)
    layout = pairs_of_rows(none, none, none.astype(bool))
    assert not layout.real.any()
    assert layout.senders.tolist() == [[0], [1], [2]]
    assert not collect(jnp.ones((2, 1)), jnp.ones((2, 1)), layout).any()
    with pytest.raises(ValueError, match="at least one node"):
        pairs_of_rows(none[:0], none[:0], none[:0].astype(bool))


@pytest.mark.parametrize(("blocks", "size"), [(3, 4), (2, 1)])
def test_pairs_of_blocks(blocks, size):
    node, slot = np.indices((blocks * size, size))
    senders, present = node // size * size + slot, np.arange(blocks * size) % 5 != 3
    rows = problems.Rows(senders, node % size, (senders != node) & present[node] & present[senders])
    _assert_pairs(jax.tree.map(np.asarray, pairs_of_blocks(rows.mask)), rows)


@pytest.fixture(scope="module")
def numbers():
    """Values of nodes, and of both ends of pairs."""
    draw = np.random.default_rng(0).normal
    layout = jax.tree.map(np.asarray, problems.layout_of(seed=2))
    of_pairs = (len(layout.real), 2, 3)
    return layout, *(draw(size=s).astype(np.float32) for s in ((NODES, 2, 3), of_pairs, of_pairs))


def test_collect_sums_up_what_belongs_to_each_node(numbers):
    layout, _, of_first, of_second = numbers
    wanted = np.zeros((NODES, 2, 3), np.float32)
    for pair in np.flatnonzero(layout.real):
        wanted[layout.first[pair]] += of_first[pair]
        wanted[layout.second[pair]] += of_second[pair]
    np.testing.assert_allclose(collect(of_first, of_second, layout), wanted, atol=1e-6)


def test_ends_and_collect_are_transposes_of_each_other(numbers):
    layout, nodes, of_first, of_second = numbers

    @jax.jit
    def both(nodes, of_first, of_second):
        found, back_to_nodes = jax.vjp(lambda nodes: ends(nodes, layout), nodes)
        sums, back_to_pairs = jax.vjp(lambda *of_pairs: collect(*of_pairs, layout), of_first, of_second)
        return found, back_to_nodes((of_first, of_second))[0], sums, back_to_pairs(nodes)

    found, of_nodes, sums, of_pairs = both(nodes, of_first, of_second)
    np.testing.assert_array_equal(of_nodes, sums)
    for end, mine, its in zip(found, of_pairs, (layout.first, layout.second), strict=True):
        np.testing.assert_array_equal(end, nodes[its])
        np.testing.assert_array_equal(mine, np.where(layout.real[:, None, None], nodes[its], 0))


def test_integers_have_no_cotangents(numbers):
    assert {leaf.dtype for leaf in jax.tree.leaves(zeros_of(numbers[0]))} == {jax.dtypes.float0}
