"""Rows of the sparse feed-forward part: right outputs, honest ratios, targets as agreed, at tiny sizes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from sparsejax.bench.machine import Machine
from sparsejax.bench.sprout import gpu as sprout_gpu
from sparsejax.bench.sprout import layers as ffn
from sparsejax.bench.sprout import quality as sprout_quality
from sparsejax.bench.sprout import speed as sprout_speed
from sparsejax.bench.sprout import training as sprout_training
from sparsejax.bench.sprout.selection import Exact, Found, choose, is_clear, mean_cosine
from sparsejax.bench.timing import race

MACHINE = Machine("cpu (test)", 1, {"jax": "1"}, 5.0, 0.5, 10.0, 30.0)
TINY = ffn.Sizes(8, 32, (16, 8, 4), block_size=4, router_rank=4, layers=2)
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
BY_BLOCKS, BY_NEURONS = sprout_speed.ONE_TOKEN[0], sprout_speed.ONE_TOKEN[3]


@pytest.fixture(autouse=True)
def short_race(monkeypatch):
    def short(calls, **_):
        return race(calls, repetitions=3, repetition_seconds=1e-5)

    for module in (sprout_speed, sprout_training):
        monkeypatch.setattr(module, "race", short)
    monkeypatch.setattr(sprout_training, "product_rate", lambda threads: 1e11)
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)  # at these sizes a second one only waits


def rows_of(sizes, tokens, ways):
    contest = sprout_speed.assemble(sizes, tokens, ways, compiled=False)
    return list(sprout_speed.rows(contest, MACHINE, quick=True))


@needs_torch
def test_every_contestant_has_the_float64_output_of_its_choice():
    sizes = replace(TINY, top_k=(8, 8, 8))
    rows = rows_of(sizes, 1, (BY_BLOCKS, BY_NEURONS))
    assert len(rows) == 6
    for row in rows:
        errors = row.quality["max error to float64, of the same choice"]
        assert errors.keys() == {"ours", *row.peers} and len(row.peers) == 4
        assert max(errors.values()) < 5e-6
        assert row.unit == "us" and row.ours > 0 and row.hardest("dense") in row.peers
    # The linear router is a copy of W1: of the few neurons with the largest sums it finds all.
    assert "(chance 0.25)" in rows[0].quality["router recall of the oracle's choice"]
    assert "multiplications allow 1.33x of dense" in rows[3].bound
    assert "multiplications allow 2.67x of dense" in rows[0].bound


def test_rows_without_torch_still_have_our_times(monkeypatch):
    def missing(*_args, **_options):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(ffn.torch_ffn, "tensor", missing)
    ffn._torch_weights.cache_clear()
    (row, *_) = rows_of(replace(TINY, top_k=(8, 8, 8), stack=2), 8, sprout_speed.SOME_TOKENS)
    assert row.unit == "ms" and row.ours > 0
    assert [name for name, time in row.peers.items() if time is None] == [
        "dense torch, W1 (d_ff, d_model)",
        "dense torch, W1 (d_model, d_ff)",
    ]
    assert any("torch is not installed" in note for note in row.notes)
    # Where the path by blocks is not taken it is still shown.
    dense = row.quality["auto takes"] == "the dense products, masked"
    assert set(row.variants) == ({"by blocks"} if dense else set())


def test_calls_go_through_all_pairs_of_layers_and_inputs():
    seen = []
    contestant = ffn.Contestant(
        lambda group, inputs: seen.append((group, inputs)), lambda *_: None, ["a", "b"], [1, 2, 3]
    )
    call = contestant.call()
    for _ in range(6):
        call()
    assert sorted(seen) == [(layer, x) for layer in "ab" for x in (1, 2, 3)]
    assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1]
    # What rotates exceeds the last cache several times, and no pair comes back soon.
    sizes = ffn.Sizes()
    assert sizes.layers * 2 * sizes.d_model * sizes.d_ff * 4 == 128 << 20
    assert len(ffn.inputs(TINY, 1)) == 5


def test_routers_repeat_the_neurons_sums():
    layer = ffn.layers(TINY)[0]
    exact = layer.w_in.T
    low_rank = layer.routers["low_rank"]["down_kernel"] @ layer.routers["low_rank"]["kernel"]
    lost = np.linalg.svd(exact, compute_uv=False)[TINY.router_rank :]
    assert np.linalg.norm(low_rank - exact) == pytest.approx(np.linalg.norm(lost), rel=1e-4)
    np.testing.assert_allclose(layer.routers["block"]["kernel"][:, 1], exact[:, 4:8].mean(axis=1), rtol=1e-6)
    # 8 x 32 in, twice; the block router has 8 columns of 8.
    assert BY_BLOCKS.share_of_dense(TINY, 16) == pytest.approx((2 * 16 * 8 + 8 * 8) / (2 * 32 * 8))


def test_selections_are_scored_against_the_oracle():
    w_in = np.array([[1.0], [-1.0], [3.0], [0.1]], np.float32)
    layer = ffn.Layer(w_in, np.ones((4, 1), np.float32), {})
    exact = Exact(layer, np.ones((1, 1), np.float32))
    np.testing.assert_allclose(exact.activations[0], [0.841345, -0.158655, 2.995950, 0.053983], atol=1e-6)
    np.testing.assert_allclose(exact.best_scores(2)[0], [1.0, 3.049933], atol=1e-6)
    scores = np.array([[0.0, 0.0, 9.0, 8.0]])
    found = Found(exact, np.array([[3.049933]]), scores, 2)
    assert found.recall() == 0.5 and found.error < 1e-6 and found.cosine() == pytest.approx(1)
    assert Found(exact, np.array([[3.1]]), scores, 2).error == pytest.approx(0.050067 / 3.049933, rel=1e-4)
    assert Found(exact, np.array([[3.0]]), np.array([[0.0, 1.0]]), 1).recall() == 1
    assert choose(np.array([[1.0, 1.0, 0.0]]), 1).tolist() == [[True, False, False]]
    assert is_clear(np.array([[1.0, 1.0], [1.0, 2.0]]), 1).tolist() == [False, True]
    assert mean_cosine(
        np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]])
    ) == pytest.approx((0.5**0.5 + 1) / 2)


def test_compilations_are_counted():
    settings = replace(sprout_training.QUICK.counted, sparsity_warmup_steps=1)
    traced, losses = sprout_training.count_compilations(settings)
    assert traced == 1 and losses.shape == (2,) and np.isfinite(losses).all()
    bucketed, _ = sprout_training.count_compilations(replace(settings, schedule="bucketed"))
    assert bucketed == 2


def test_a_sparse_step_with_all_neurons_has_the_dense_loss():
    row = sprout_training.time_row(sprout_training.QUICK, MACHINE, quick=True)
    assert row.quality["loss of all neurons by the sparse step, less the dense loss"]["ours"] < 1e-5
    assert row.unit == "x" and row.ours > 0 and row.targets[0].at_most == 1.3
    assert row.best.keys() == {"ours"}


@pytest.fixture
def held_out():
    import jax

    from sparsejax.models.sprout import SproutConfig, SproutLM

    config = SproutConfig(
        vocab_size=20, d_model=8, d_ff=32, n_heads=2, n_layers=2, max_len=8, router="linear", block_size=4
    )
    model, draws = SproutLM(config), np.random.default_rng(0)
    read = draws.integers(0, 20, (1, 4, 8))
    params = jax.jit(model.init)(jax.random.key(0), read[0])["params"]
    for layer in ("layer_0", "layer_1"):  # large sums, of which the largest are the oracle's choice, too
        params[layer]["ffn"]["w_in"] *= 50
    labels = np.where(draws.random(read.shape) < 0.5, read, -100)
    return sprout_quality.HeldOut("tiny", model, params, read, labels)


def test_quality_rows_compare_router_oracle_and_dense(held_out):
    rows = list(sprout_quality.measure(held_out, MACHINE))
    cosines, losses = rows[:6], rows[6:]
    assert all(0 < row.ours and row.targets[0].no_less == 0.97 for row in cosines)
    # The router is a copy of W1: where few neurons are chosen it chooses those of the oracle.
    assert cosines[2].ours == pytest.approx(1, abs=1e-5)
    assert [row.targets[0].at_most for row in losses] == [2, 5, 12, 2, 5, 12, 3, 3, 3]
    found = sprout_quality.masked_losses(held_out)
    assert found["neurons", 1.0] == pytest.approx(found["blocks", 1.0], rel=1e-6)
    assert losses[1].ours == pytest.approx(100 * (found["neurons", 0.25] / found["neurons", 1.0] - 1))


def test_targets_are_those_agreed():
    assert {way.words: way.at_least for way in sprout_speed.ONE_TOKEN} == {
        "block router": (1.25, 2, 3),
        "rank-64 router, by blocks": (1.15, 1.8, 2.7),
        "rank-64 router, by neurons": (None, None, None),
        "linear router, by neurons": (None, None, None),
    }
    (some,), (many,) = sprout_speed.SOME_TOKENS, sprout_speed.MANY_TOKENS
    assert some.at_least == (None, None, 1.4) and many.at_least == (1.1, 1.6, 2.6)
    assert tuple(sprout_speed.PLAN) == (1, 128, 4096)
    sizes = ffn.Sizes()
    assert (sizes.d_model, sizes.d_ff, sizes.block_size, sizes.router_rank) == (512, 2048, 64, 64)
    assert [BY_BLOCKS.count(sizes, top_k) for top_k in sizes.top_k] == [16, 8, 3]
    gpu = sprout_gpu.SIZES
    assert (gpu.d_model, gpu.d_ff, gpu.dtype) == (4096, 16_384, "bfloat16")
    assert sprout_gpu._TOKENS == (1, 128, 4096, 16_384) and sprout_gpu._WAYS[0].at_least == (1.25, 2, 3)
    timed = sprout_training.SIZES
    assert (timed.timed.d_model, timed.vocab_size, timed.timed.n_layers) == (512, 30_522, 6)


def test_where_jax_finds_no_gpu_there_are_no_rows_of_one():
    assert sprout_gpu.measure(quick=True, threads=1) == []
