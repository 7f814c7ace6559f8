"""Training on text from end to end: what a run leaves, kill and resumption, devices, bad input."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.console import SHOWN_RUNS
from sparsejax.models.ten import TemporalEigenstateConfig
from sparsejax.models.ten.presets import preset
from sparsejax.training import text_run
from sparsejax.training.errors import RunError
from sparsejax.training.recipes.ten import parts as ten_parts
from sparsejax.training.recipes.ten import recipe
from sparsejax.training.recipes.ten.settings import TenSettings
from sparsejax.training.run_folder import read_run
from sparsejax.training.text.tokenizer import tokenizer_named
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
TOY = ("dim=8", "n_layers=1", "num_eigenstates=4", "n_heads=2", "short_conv=0")


def settings(folder: Path, **options) -> TenSettings:
    given = {
        "steps": STEPS,
        "batch_size": 4,
        "seq_len": 16,
        "accumulate": 2,
        "learning_rate": 0.01,
        "model_option": TOY,
        "validate_every": 8,
        "save_every": 4,
        "plots": False,
        "quiet": True,
    }
    return TenSettings(data=text_beside(folder), out=folder, **{**given, **options})


def _train(folder, **options):
    return recipe.train(recipe.prepare(settings(folder, **options)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, _train(folder)


def test_run_leaves_metrics_and_networks_that_load(whole):
    folder, trained = whole
    rows = metrics(folder)
    losses = [row["loss"] for row in rows if "loss" in row]
    validations = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in validations] == [8, 16, 24]
    assert losses[-1] < losses[0] - 0.5
    assert rows[0]["learning_rate"] == 0  # warm-up from zero
    last = validations[-1]
    assert last["validation_perplexity"] == pytest.approx(math.exp(last["validation_loss"]))
    assert last["validation_tokens"] == recipe.prepare(settings(folder, resume=True)).tokens[1] - 1
    assert trained.best.score.loss == min(row["validation_loss"] for row in validations)
    assert read_run(folder)["finished"]
    ck = sj.load(folder / "best")
    assert ck.metadata["validation_loss"] == trained.best.score.loss
    ids = tokenizer_named(ck.metadata["tokenizer"]).encode(b"3 times 7 is ")
    assert ck.apply(ids[None].astype(np.int32)).logits.shape == (1, 13, 258)


def test_a_user_is_told_what_is_trained_and_what_came_of_it(whole, capsys):
    folder, trained = whole
    run = recipe.prepare(settings(folder, resume=True))
    before, after = SHOWN_RUNS["ten"]
    before(dataclasses.replace(run, standing="unfinished"))
    after(run, trained)
    text, network, going_on, best, final, where = capsys.readouterr().out.splitlines()
    training, held_out = run.tokens
    sizes = f"{training:,} + {held_out:,} tokens (training, validation), vocabulary 258"
    assert text == f"{folder.parent / 'text.txt'}: {sizes}"
    assert network.startswith(
        f"ten: tiny, {run.config.num_parameters:,} parameters, 24 steps of 4 x 16 tokens, "
    )
    assert network.endswith(f"{24 * 4 * 16 / training:.3g} passes over the text")
    assert going_on == f"{folder}: continued from the last saved step"
    score = trained.best.score
    assert best == (
        f"{folder / 'best'}: step {trained.best.step}, validation perplexity {score.perplexity:.2f} "
        f"({score.loss:.4f} nats per token over {held_out - 1:,} tokens)"
    )
    assert final.startswith(f"{folder / 'final'}: step 24, ") and where.endswith(f"networks: {folder}")


def test_pictures_are_of_the_run_s_folder(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sparsejax.plots.ten.draw_folder", drawn.append)
    recipe._draw(tmp_path)
    assert drawn == [tmp_path]


def test_a_text_of_its_own_is_held_out_whole(tmp_path):
    (tmp_path / "other.txt").write_text("held out " * 9)
    run = recipe.prepare(settings(tmp_path / "run", validation_data=tmp_path / "other.txt"))
    assert run.tokens == ((tmp_path / "text.txt").stat().st_size + 1, 9 * 9 + 1)


def test_validation_is_the_loss_of_the_written_network(whole):
    folder, trained = whole
    ck = sj.load(folder / "final")
    run = recipe.prepare(settings(folder, resume=True))
    windows = [run.held_out[number] for number in range(len(run.held_out))]
    batch = {name: jnp.stack([window[name] for window in windows]) for name in windows[0]}
    evaluate = jax.jit(ten_parts.next_token_loss(ck.config, train=False))
    loss = evaluate(ck.params, batch, jax.random.key(0))
    assert float(loss.mean) == pytest.approx(trained.final.score.loss, rel=1e-6)


def test_killed_at_a_random_step_it_goes_on_with_the_same_bits(whole, tmp_path):
    folder, step = tmp_path / "run", random.randint(1, STEPS - 1)
    dying = DYING_BATCHES.format(module="sparsejax.training.text_run", step=step)
    train_killed("ten", settings(folder), folder, dying)
    trained = _train(folder, resume=True)
    assert metrics(folder) == metrics(whole[0]), f"killed at step {step}"
    assert trained.best == whole[1].best


def test_other_settings_or_text_are_another_run(whole):
    folder, _ = whole
    with pytest.raises(RunError, match="learning rate is 0.01 there and 0.02 here"):
        recipe.prepare(settings(folder, resume=True, learning_rate=0.02))
    assert recipe.prepare(settings(folder, resume=True, save_every=2, devices=1)).standing == "finished"


def test_published_blocks_train_in_bfloat16_with_their_penalty(tmp_path):
    options = ("dim=8", "n_layers=1", "num_eigenstates=4", "use_gradient_checkpointing=False")
    _train(tmp_path / "run", preset="nano", model_option=options, bf16=True, steps=6, validate_every=6)
    rows = [row for row in metrics(tmp_path / "run") if "loss" in row]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert rows[0]["penalty"] == pytest.approx(0.01 * 8 * 0.95**2, rel=0.15)  # two cells of four, on the ring
    assert sj.load(tmp_path / "run" / "final").variant == "paper"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    begin = text_run._begin

    def spoilt(*given):
        saved = begin(*given)
        params = jax.tree.map(lambda leaf: leaf * jnp.nan, saved.states.params)
        return saved._replace(states=saved.states.replace(params=params))

    monkeypatch.setattr(text_run, "_begin", spoilt)
    with pytest.raises(RunError, match=r"the loss is nan at step 1: start again"):
        _train(tmp_path / "run")


def test_groups_spare_what_is_no_weight():
    config = preset("tiny", dim=8, num_eigenstates=4, n_heads=2, n_layers=2)
    params = jax.eval_shape(lambda key: ten_parts.initial_params(config, key), jax.random.key(0))
    spared, decayed = set(), set()
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        first = next((g for g in ten_parts.groups(config) if _matches(g, name)), None)
        (decayed if first is None else spared).add(name.split("/", 1)[-1] if "layer_" in name else name)
    assert {
        "decay_logit",
        "frequency",
        "norm1/scale",
        "gate/bias",
        "memory_gate",
        "final_norm/bias",
    } <= spared
    assert {"in_proj/kernel", "coupling", "memory_proj/kernel", "short_conv/kernel"} <= decayed
    assert "token_embedding/embedding" in decayed
    assert not spared & decayed


def test_a_sinusoidal_table_never_moves():
    config = TemporalEigenstateConfig(pos_emb_type="sinusoidal")
    group = next(g for g in ten_parts.groups(config) if _matches(g, "position_embedding/embedding"))
    assert (group.rate, group.decays) == (0.0, False)


def _matches(group, path):
    import re

    return re.search(group.pattern, path) is not None


BAD = {
    "data": ({"data": Path("/none/text.txt")}, "there is no such file or folder"),
    "tokenizer": ({"tokenizer": Path("/none/tokenizer.json")}, "cannot be read"),
    "preset": ({"preset": "tinny"}, "no preset is called 'tinny'; near it: tiny"),
    "window": ({"seq_len": 10**6}, "is shorter than one window"),
    "steps": ({"steps": 0}, "--steps must be at least 1, not 0"),
    "rate": ({"learning_rate": float("nan")}, "--learning-rate must be at least 0, not nan"),
    "parts": ({"accumulate": 3}, "--batch-size 4 does not divide into the 3 parts"),
    "devices": ({"devices": 99}, "99 x 1 devices are asked for"),
    "warmup": ({"warmup": 99}, "between 0 and the 24 steps of the run, not 99"),
    "torch": ({"schedule": "torch_cosine", "warmup": 2}, "has no warm-up"),
    "option": ({"model_option": ("dimm=8",)}, "no option 'dimm'; near it: dim"),
    "vocabulary": ({"model_option": ("vocab_size=8",)}, "the vocabulary is the tokenizer's"),
    "heads": ({"model_option": ("num_eigenstates=5",)}, "does not divide among n_heads"),
    "future": ({"model_option": (*TOY, "anticausal_chunk=4")}, "anticausal chunks look ahead"),
    "positions": ({"preset": "nano", "seq_len": 4096}, "longer than the position table of 2048"),
    "fraction": ({"validation_fraction": 0.0}, "between 0 and 1, not 0.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path):
    options, told = BAD[case]
    given = dataclasses.replace(settings(tmp_path / "run"), **options)
    check_refused(recipe, given, told, tmp_path / "run")


def test_two_by_two_devices_train_like_one(whole, tmp_path):
    """By the command line: the batch in two parts, matrices and the vocabulary in two."""
    given, folder = settings(tmp_path / "run"), tmp_path / "run"
    names = ("data", "out", "steps", "batch_size", "seq_len", "accumulate", "learning_rate", "save_every")
    arguments = {name: getattr(given, name) for name in (*names, "validate_every")}
    arguments |= {"devices": 2, "model_devices": 2}
    toy = [part for option in TOY for part in ("--model-option", option)]
    train_by_command("ten", arguments, *toy, devices=4)
    check_same_run(folder, whole[0], abs=1e-5, rel=1e-5)
