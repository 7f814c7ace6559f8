"""The annealing peers do what ours does: same error, same rule, results that no test tells apart."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import ks_2samp, mannwhitneyu

from sparsejax.bench.peers import annealer, numpy_net
from sparsejax.bench.ultra_sparse.training import annealing, sine_table

IN_TORCH = [
    pytest.param(annealer.torch_anneal, marks=pytest.mark.torch, id="torch"),
    pytest.param(annealer.torch_as_published, marks=pytest.mark.torch, id="torch as published"),
]


@pytest.mark.parametrize("peer", [pytest.param(annealer.numpy_anneal, id="numpy"), *IN_TORCH])
def test_a_peer_reports_the_error_of_its_net_and_improves_it(peer):
    features, goal = sine_table()
    short, found = peer(features, goal, 1, 0), peer(features, goal, 150, 0)
    outputs = numpy_net.sparse_rows_plain(found.net.astype("float64"))(features.astype(np.float64))[:, 0]
    assert found.mse == pytest.approx(np.mean((outputs - goal) ** 2), rel=1e-5)
    assert found.mse < 0.7 * short.mse
    assert 20 < found.accepted < 150
    table = np.sort(found.net.indices, axis=1)
    assert (table[:, 0] < table[:, 1]).all() and table.min() >= 0 and table.max() < 256


def test_ours_and_the_numpy_peer_draw_from_one_distribution():
    """20 runs each of 1,000 steps; the bench does the same with the published 20,000."""
    features, goal = sine_table()
    ours = np.asarray(annealing(20, 1000)(0).loss)
    peers = np.array([annealer.numpy_anneal(features, goal, 1000, seed).mse for seed in range(20)])
    assert mannwhitneyu(ours, peers).pvalue > 0.01
    assert ks_2samp(ours, peers).pvalue > 0.01
    # The test can tell: a tenth of the steps is another distribution.
    fewer = np.array([annealer.numpy_anneal(features, goal, 100, seed).mse for seed in range(20)])
    assert mannwhitneyu(ours, fewer).pvalue < 1e-4


def test_the_schedule_of_the_peers_is_ours():
    from sparsejax.models.ultra_sparse.evolve import AnnealParams

    hyper = AnnealParams()
    np.testing.assert_allclose(annealer.temperatures(5)[0], hyper.initial_temperature)
    ratio = hyper.final_temperature / hyper.initial_temperature
    np.testing.assert_allclose(annealer.temperatures(5)[3], hyper.initial_temperature * ratio**0.6)


def test_one_chain_is_annealed_without_a_leading_axis():
    found = annealing(None, 50)(0)
    assert found.loss.shape == ()
    assert jax.tree.leaves(found.params)[0].ndim <= 2
