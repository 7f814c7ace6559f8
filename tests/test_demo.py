"""The demo of networks that no built-in task fits, and its page without plots."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import demo
from sparsejax.checkpoint.checkpoint import Checkpoint, template
from sparsejax.checkpoint.registry import find
from sparsejax.models.force_field import ForceFieldConfig
from sparsejax.models.sparse_inference.part_configs import ScorerConfig
from sparsejax.models.sprout import SproutFFNConfig
from sparsejax.models.ten import TemporalEigenstateConfig
from sparsejax.models.ultra_sparse import UltraSparseConfig

TEN = TemporalEigenstateConfig.modern(vocab_size=20, dim=8, n_layers=1, num_eigenstates=4, n_heads=2)
OTHERS = {
    "ultra_sparse": (
        UltraSparseConfig.fixed_k(input_size=20),
        "for this size",
        {1: (1, 20), 4096: (4096, 20)},
    ),
    "ten": (TEN, "for this vocabulary", {1: (1, 1)}),
    "force_field": (
        ForceFieldConfig(hidden_dim=8, num_interactions=1, num_rbf=4, max_z=10, species=(6, 7)),
        "for these elements",
        {1: (4, 3)},
    ),
}


def _drawn(kind, config):
    """A checkpoint of any numbers."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(leaf.dtype)), template(find(kind), config)
    )
    return Checkpoint(kind, None, config, params)


@pytest.mark.parametrize("kind", OTHERS)
def test_networks_that_no_task_fits_are_timed_alone(kind):
    config, words, batches = OTHERS[kind]
    shown = demo._DEMOS[kind](_drawn(kind, config))
    assert shown.quality == f"no built-in task {words}"
    assert {size: batch.shape for size, batch in shown.batches.items()} == batches
    for batch in shown.batches.values():
        jax.eval_shape(shown.call, batch)
    assert shown.curve is None and shown.sparsity == ()


def test_parts_of_a_network_are_timed_alone(tmp_path):
    shown = demo._llama(_drawn("sparse_inference", ScorerConfig(4, 6, 2)), tmp_path / "x.json")
    assert shown.quality == "no built-in task for parts of a network"
    assert jax.eval_shape(shown.call, shown.batches[1]).shape[-1] == 6


def test_an_ffn_on_its_own_shows_its_neurons_on_random_states(monkeypatch):
    monkeypatch.setattr(demo, "_SHARES", (1.0,))
    shown = demo._sprout(_drawn("sprout", SproutFFNConfig(4, 8, block_size=4)))
    (all_of_them,) = shown.sparsity
    assert (all_of_them.share, all_of_them.neurons) == (1.0, 0.0) and all_of_them.blocks < 1e-6
    assert shown.quality.startswith(
        "part of the neurons: error by neurons, by blocks, time: 100%: 0.00, 0.00, "
    )
    assert shown.batches[1].shape == (1, 1, 4)


def test_a_page_without_matplotlib_says_how_to_get_plots(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    curve = (np.zeros(3), np.zeros(3))
    row = demo.DemoRow("x.pt", "ultra_sparse/sparse", 33, "equal", True, "sin(x)", {1: 2.0}, curve)
    demo.write_report([row], tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text()
    assert "Install matplotlib (sparsejax[plots]) to see target and prediction." in page
    assert "<td>x.pt</td>" in page and "<svg" not in page
