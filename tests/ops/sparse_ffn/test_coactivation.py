"""Neurons that act together come side by side, however the blocks are made."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.ops.sparse_ffn import coactivation
from sparsejax.ops.sparse_ffn.block_strength import strength_kept
from sparsejax.ops.sparse_ffn.coactivation import check_order, coactivation_order


def _planted(groups, size, samples=200):
    """Groups of neurons that act together, shuffled; and the group of each."""
    draws = np.random.default_rng(0)
    active = (draws.random((samples, groups)) < 0.2) * draws.random((samples, groups))
    group_of = draws.permutation(np.repeat(np.arange(groups), size))
    noise = 0.02 * draws.random((samples, groups * size))
    return active[:, group_of] * (0.5 + draws.random(groups * size)) + noise, group_of


def test_the_strength_kept_of_no_blocks_and_of_no_strength():
    strengths = np.arange(8.0).reshape(2, 4)
    assert [strength_kept(strengths, 2, blocks) for blocks in (0, 2, 3)] == [0, 1, 1]
    assert strength_kept(np.zeros((2, 4)), 2, 1) == strength_kept(np.zeros((0, 4)), 2, 1) == 1


@pytest.fixture(params=["pairwise", "halved"])
def way(request, monkeypatch):
    """Both ways to make blocks, whatever the number of neurons."""
    if request.param == "halved":
        monkeypatch.setattr(coactivation, "PAIRWISE", 0)
    return request.param


def test_planted_groups_are_found(way):
    strengths, group_of = _planted(24, 8)
    order = coactivation_order(strengths, 8)
    blocks = group_of[order].reshape(-1, 8)
    assert (blocks == blocks[:, :1]).all(axis=1).mean() > 0.9
    assert strength_kept(strengths[:, order], 8, 6) > strength_kept(strengths, 8, 6) + 0.3


def test_hot_neurons_come_first(way):
    strengths, _ = _planted(6, 4)
    strengths[:, [3, 11, 17]] = 1.0
    order = coactivation_order(np.where(strengths > 0.05, strengths, 0), 4, hot=3)
    assert {3, 11, 17} <= set(order[:4].tolist())
    assert sorted(order.tolist()) == list(range(24))


def test_units_stay_together():
    strengths, _ = _planted(8, 8)
    order = coactivation_order(strengths, 16, unit=4)
    assert check_order(order, 64, unit=4).shape == (64,)
    with pytest.raises(ValueError, match="tears apart blocks of 4 neurons"):
        check_order(coactivation_order(strengths, 16), 64, unit=4)


def test_the_last_block_may_be_shorter(way):
    strengths, _ = _planted(5, 4)
    order = coactivation_order(strengths[:, :18], 4)
    assert sorted(order.tolist()) == list(range(18))
    for neurons, size in ((5, 2), (3, 8), (4, 1)):
        for equal in (np.zeros((2, neurons)), np.ones((2, neurons))):
            assert sorted(coactivation_order(equal, size).tolist()) == list(range(neurons))


def test_blocks_are_chosen_anew_while_it_helps():
    strengths, group_of = _planted(6, 4)
    rows = strengths.T.astype(np.float32)
    torn = np.arange(24) // 4
    found = coactivation._improved(rows, torn, 4)
    assert np.bincount(found).tolist() == [4] * 6
    assert coactivation._squares(rows, found) > 1.2 * coactivation._squares(rows, torn)
    assert coactivation._squares(rows, found) <= coactivation._squares(rows, group_of)


def test_hidden_clusters_are_found():
    rng = np.random.default_rng(0)
    clusters, size, tokens = 8, 4, 400
    on = np.zeros((tokens, clusters))
    for row in on:
        row[rng.choice(clusters, 2, replace=False)] = 1
    hidden_in = rng.permutation(clusters * size)
    strengths = (np.repeat(on, size, axis=1) + 0.1) * rng.uniform(0.5, 1.5, (tokens, clusters * size))
    shuffled = strengths[:, hidden_in]
    order = coactivation_order(shuffled, size)
    kept = [strength_kept(each, size, 2) for each in (strengths, shuffled, shuffled[:, order])]
    assert kept[1] < 0.6 * kept[0]
    assert kept[2] == pytest.approx(kept[0], rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coactivation_order(np.ones(3), 2), "finite matrix"),
        (lambda: coactivation_order(np.full((2, 4), np.nan), 2), "finite matrix"),
        (lambda: coactivation_order(-np.ones((2, 4)), 2), "without negative values"),
        (lambda: coactivation_order(np.ones((2, 4)), 0), "unit 1 must divide block_size 0"),
        (lambda: coactivation_order(np.ones((2, 6)), 4, unit=4), "unit 4 must divide"),
        (lambda: coactivation_order(np.ones((2, 4)), 2, hot=5), "hot must be 0 to 4"),
        (
            lambda: check_order([0, 0, 1], 3, of="layer_1"),
            "order of layer_1 is no permutation of its 3 neurons",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
