"""Training a Llama from end to end: what a run leaves, kill and resumption, formats, devices, bad input."""

from __future__ import annotations

import dataclasses
import math
import random
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint.gguf import read_gguf
from sparsejax.console import SHOWN_RUNS
from sparsejax.models.sparse_inference.tokenizer.tokenizer import read_tokenizer
from sparsejax.training.errors import RunError
from sparsejax.training.recipes.llama import parts as llama_parts
from sparsejax.training.recipes.llama import recipe
from sparsejax.training.recipes.llama.file import write_llama
from sparsejax.training.recipes.llama.settings import LlamaSettings
from sparsejax.training.run_folder import read_run
from tests.training.recipes.runs import (
    DYING_BATCHES,
    check_refused,
    check_same_run,
    metrics,
    text_beside,
    train_by_command,
    train_killed,
)

pytest.importorskip("grain")

STEPS = 24


def settings(folder: Path, **options) -> LlamaSettings:
    given = {
        "d_model": 8,
        "d_ff": 32,
        "n_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 1,
        "activation": "relu",
        "sparsity_weight": 0.02,
        "format": "f32",
        "steps": STEPS,
        "batch_size": 4,
        "seq_len": 16,
        "accumulate": 2,
        "learning_rate": 0.02,
        "validate_every": 8,
        "save_every": 4,
        "plots": False,
        "quiet": True,
    }
    return LlamaSettings(data=text_beside(folder), out=folder, **{**given, **options})


def _train(folder, **options):
    return recipe.train(recipe.prepare(settings(folder, **options)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, _train(folder)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    given = settings(tmp_path_factory.mktemp("network") / "run", d_model=32, d_ff=64, n_layers=2)
    config = llama_parts.network_config(given, 40)
    return config, jax.jit(partial(llama_parts.initial_params, config))(jax.random.key(0))


def test_run_leaves_metrics_and_a_file_with_its_tokenizer(whole):
    folder, trained = whole
    rows = [row for row in metrics(folder) if "loss" in row]
    validations = [row for row in metrics(folder) if "validation_loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["step"] for row in validations] == [8, 16, 24]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert 1 / 32 <= rows[0]["effective_share"] <= 1 and 0.3 < rows[0]["active_share"] < 0.7
    assert validations[-1]["validation_perplexity"] == pytest.approx(
        math.exp(validations[-1]["validation_loss"])
    )
    assert read_run(folder)["finished"]
    ck = sj.load(folder / "best.gguf")
    assert (ck.config.activation, ck.config.n_kv_heads, ck.config.tied_output) == ("relu", 1, True)
    assert ck.metadata["sparsejax.validation_loss"] == pytest.approx(trained.best.score.loss, rel=1e-6)
    ids = read_tokenizer(ck.metadata).encode("3 times 7 is ")
    assert ids[0] == 1 and ck.apply(jnp.asarray([ids])).logits.shape == (1, 14, 260)


def test_a_user_is_told_what_is_trained_and_what_came_of_it(whole, capsys):
    folder, trained = whole
    run = recipe.prepare(settings(folder, resume=True))
    before, after = SHOWN_RUNS["llama"]
    before(run)
    after(run, trained)
    text, network, best, final, where = capsys.readouterr().out.splitlines()
    training, held_out = run.tokens
    sizes = f"{training:,} + {held_out:,} tokens (training, validation), vocabulary 260"
    assert text == f"{folder.parent / 'text.txt'}: {sizes}"
    count = sj.load(folder / "best.gguf").num_values
    assert network.startswith(
        f"llama: ReGLU, {count:,} parameters, 1 blocks of 32 neurons, 24 steps of 4 x 16 "
    )
    assert network.endswith(f"{24 * 4 * 16 / training:.3g} passes over the text; written as f32")
    assert best.startswith(f"{folder / 'best.gguf'}: step {trained.best.step}, validation perplexity ")
    assert f"{trained.final.score.loss:.4f} nats per token over " in final
    assert all(f"{name} {value:.3g}" in final for name, value in (trained.final.score.metrics or {}).items())
    assert where.endswith(f"networks: {folder}")


def test_pictures_are_of_the_run_s_folder(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sparsejax.plots.sparse_inference.draw_folder", drawn.append)
    recipe._draw(tmp_path)
    assert drawn == [tmp_path]


def test_bfloat16_computes_alone_and_gradients_stay_float32(network):
    config, params = network
    batch = dict.fromkeys(("inputs", "targets"), jax.ShapeDtypeStruct((1, 8), np.int32))

    def mean(loss):
        return lambda params, batch: loss(params, batch, jax.random.key(0)).mean

    told = {
        dtype: str(jax.make_jaxpr(mean(llama_parts.next_token_loss(config, dtype=dtype)))(params, batch))
        for dtype in (None, jnp.bfloat16)
    }
    assert "bf16[1,8,64]" in told[jnp.bfloat16] and "bf16" not in told[None]
    narrow = mean(llama_parts.next_token_loss(config, dtype=jnp.bfloat16))
    gradients = jax.eval_shape(jax.grad(narrow), params, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


def test_validation_is_the_loss_of_the_written_network(whole):
    folder, trained = whole
    ck = sj.load(folder / "final.gguf")
    run = recipe.prepare(settings(folder, resume=True))
    windows = [run.held_out[number] for number in range(len(run.held_out))]
    inputs, targets = (np.stack([window[name] for window in windows]) for name in ("inputs", "targets"))
    ahead = np.asarray(jax.nn.log_softmax(ck.apply(jnp.asarray(inputs), capacity=0).logits))
    counted = targets >= 0
    picked = np.take_along_axis(ahead, np.where(counted, targets, 0)[..., None], axis=-1)[..., 0]
    assert -picked[counted].mean() == pytest.approx(trained.final.score.loss, rel=1e-5)


def test_killed_at_a_random_step_it_goes_on_with_the_same_bits(whole, tmp_path):
    folder, step = tmp_path / "run", random.randint(1, STEPS - 1)
    dying = DYING_BATCHES.format(module="sparsejax.training.text_run", step=step)
    train_killed("llama", settings(folder), folder, dying)
    trained = _train(folder, resume=True)
    assert metrics(folder) == metrics(whole[0]), f"killed at step {step}"
    assert trained.best == whole[1].best
    assert (folder / "best.gguf").read_bytes() == (whole[0] / "best.gguf").read_bytes()


def test_two_by_two_devices_train_like_one(whole, tmp_path):
    """By the command line: the batch in two parts, matrices and the vocabulary in two."""
    given, folder = settings(tmp_path / "run"), tmp_path / "run"
    flags = ("tied_output", "bf16", "plots", "resume", "quiet", "plain")
    arguments = {
        name: value
        for name, value in vars(given).items()
        if isinstance(value, str | int | float | Path) and name not in flags and value != ""
    }
    arguments |= {"devices": 2, "model_devices": 2}
    train_by_command("llama", arguments, devices=4)
    check_same_run(folder, whole[0], abs=1e-4, rel=1e-4)


def test_other_settings_or_text_are_another_run(whole):
    folder, _ = whole
    with pytest.raises(RunError, match="sparsity weight is 0.02 there and 0.1 here"):
        recipe.prepare(settings(folder, resume=True, sparsity_weight=0.1))
    assert recipe.prepare(settings(folder, resume=True, save_every=2)).standing == "finished"


def test_the_effective_share_does_not_mind_scale_and_its_gradient_is_finite():
    draws = np.random.default_rng(0)
    hidden = jnp.asarray(draws.normal(size=(5, 16)))
    shares = llama_parts.effective_share(hidden)
    wide = np.asarray(hidden, np.float64)
    np.testing.assert_allclose(shares, np.abs(wide).sum(1) ** 2 / (16 * (wide**2).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(llama_parts.effective_share(3 * hidden), shares, rtol=1e-5)
    gradient = jax.grad(lambda values: llama_parts.effective_share(values).sum())
    assert np.isfinite(gradient(hidden.at[0].set(0))).all()
    np.testing.assert_allclose((gradient(hidden) * hidden).sum(axis=1), 0, atol=1e-5)


@pytest.mark.parametrize(("kept", "most"), [("f32", 0), ("f16", 1e-3), ("q8_0", 0.01), ("q4_0", 0.2)])
def test_a_written_network_is_the_trained_one_up_to_its_format(kept, most, network, tmp_path):
    config, params = network
    write_llama(tmp_path / "x.gguf", config, params, kept_format=kept, also={"general.name": "né"})
    file = read_gguf(tmp_path / "x.gguf")
    assert file.metadata["general.name"] == "né"
    assert file.tensors["blk.1.ffn_down.weight"].format == kept
    assert file.tensors["blk.1.ffn_norm.weight"].format == "f32"
    down, written = params["blk_1"]["ffn_down"]["weight"], file.tensors["blk.1.ffn_down.weight"]
    difference = np.abs(written.dequantize().T - down).max() / np.abs(down).max()
    assert difference <= most


def test_weight_decay_spares_norms_and_nothing_else(network, tmp_path):
    given = settings(tmp_path / "run", learning_rate=0.5, warmup=0, clip=0.0)
    chain, (_, params) = llama_parts.optimizer(given), network

    @jax.jit
    def step(params):
        return chain.update(jax.tree.map(jnp.zeros_like, params), chain.init(params), params)[0]

    updates = step(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert bool(jnp.any(leaf)) != ("norm" in name), name


BAD = {
    "data": ({"data": Path("/none/text.txt")}, "there is no such file or folder"),
    "tokenizer": ({"tokenizer": "llama", "vocab_size": 10}, "a vocabulary of 10 has no room"),
    "window": ({"seq_len": 10**6}, "is shorter than one window"),
    "steps": ({"steps": 0}, "--steps must be at least 1, not 0"),
    "rate": ({"learning_rate": float("nan")}, "--learning-rate must be at least 0, not nan"),
    "weight": ({"sparsity_weight": -1.0}, "--sparsity-weight must be at least 0, not -1.0"),
    "parts": ({"accumulate": 3}, "--batch-size 4 does not divide into the 3 parts"),
    "devices": ({"devices": 99}, "99 x 1 devices are asked for"),
    "warmup": ({"warmup": 99}, "between 0 and the 24 steps of the run, not 99"),
    "heads": ({"n_heads": 3}, "--d-model 8 does not divide into --n-heads 3"),
    "groups": ({"n_kv_heads": 3}, "does not divide into"),
    "odd": ({"n_heads": 8, "n_kv_heads": 8}, "even number of channels"),
    "format": ({"format": "q8_0"}, "no blocks of 32 as q8_0 needs"),
    "kind of format": ({"format": "q9_9"}, "format 'q9_9' is not one of ("),
    "fraction": ({"validation_fraction": 0.0}, "between 0 and 1, not 0.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path):
    options, told = BAD[case]
    given = dataclasses.replace(settings(tmp_path / "run"), **options)
    check_refused(recipe, given, told, tmp_path / "run")


def test_a_file_s_tokenizer_is_taken(whole, tmp_path):
    run = recipe.prepare(settings(tmp_path / "run", tokenizer_from=whole[0] / "best.gguf"))
    assert run.identity["tokenizer checksum"] == read_run(whole[0])["settings"]["tokenizer checksum"]
    with pytest.raises(sj.CheckpointError, match="text.txt"):
        recipe.prepare(settings(tmp_path / "run", tokenizer_from=tmp_path / "text.txt"))
