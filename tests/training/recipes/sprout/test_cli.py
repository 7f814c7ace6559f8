"""``sparsejax train sprout`` and ``sparsejax fill-mask``: published flags, one-line errors, output."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.sprout import SproutConfig, SproutLM
from sparsejax.training.recipes.sprout import recipe
from sparsejax.training.recipes.sprout.fill_mask import fill_mask
from sparsejax.training.text.wordpiece import wordpiece_from_vocabulary
from tests.command_line import refused, run
from tests.training.recipes.runs import parsed_settings

pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "##ish", "."]


def _parsed(monkeypatch, *arguments):
    return parsed_settings(monkeypatch, recipe, "sprout", "--data", "text.txt", "--out", "run", *arguments)


def test_published_flags_and_defaults_are_kept(monkeypatch, capsys):
    given = _parsed(monkeypatch)
    published = {
        "vocab_size": 30522,
        "d_model": 512,
        "d_ff": 2048,
        "n_layers": 6,
        "n_heads": 8,
        "max_seq_len": 128,
        "initial_top_k": None,
        "final_top_k": 512,
        "sparsity_warmup_steps": 10000,
        "batch_size": 32,
        "learning_rate": 3e-4,
        "weight_decay": 0.01,
        "num_epochs": 3,
        "warmup_steps": 1000,
        "gradient_clip": 1.0,
        "log_interval": 100,
        "eval_interval": 1000,
        "save_interval": 5000,
        "mixed_precision": True,
        "router_lr_multiplier": 5.0,
        "router_loss_weight": 0.1,
    }
    assert {name: getattr(given, name) for name in published} == published
    capsys.readouterr()
    for dash in ("-", "_"):  # the seed text's own command line, and with dashes
        arguments = f"--d{dash}model 256 --initial_top{dash}k 1024 --final{dash}top_k 512 "
        arguments += f"--no{dash}mixed{dash}precision"
        given = _parsed(monkeypatch, *f"{arguments} --sparsity{dash}warmup{dash}steps 20000".split())
        found = (given.d_model, given.initial_top_k, given.sparsity_warmup_steps, given.mixed_precision)
        assert found == (256, 1024, 20000, False)
    assert _parsed(monkeypatch, "--initial_top_k", "None").initial_top_k is None


def test_small_or_missing_texts_are_told_before_anything_is_written(tmp_path, capsys):
    pytest.importorskip("grain")
    text, out = tmp_path / "text.txt", tmp_path / "run"
    given = ("train", "sprout", "--out", out, "--no-plots", "--data")
    assert "there is no such file or folder" in refused(capsys, *given, tmp_path / "none.txt")
    text.write_text(" \n\n")
    assert "holds no text" in refused(capsys, *given, text)
    text.write_text("one line")
    assert "one line is too short" in refused(capsys, *given, text)
    text.write_text("some words\n" * 100)
    told = refused(capsys, *given, text)
    assert "--warmup-steps 1000 is longer than the training of 9 steps (95 rows, 3 steps per epoch)" in told
    told = refused(capsys, *given, text, "--warmup-steps", 5)
    assert "--sparsity-warmup-steps 10000 is longer than the training of 9 steps" in told
    assert "is a file; give a folder" in refused(
        capsys, *given, text, "--out", text, "--steps", 20000, "--max_samples", 50
    )
    for recipe_of in (("--recipe", "compat"), ("--router-loss", "all")):
        told = refused(capsys, *given, text, *recipe_of, "--z-loss-weight", 0.1)
        assert "go with --recipe default and --router-loss distillation or none" in told
    assert not out.exists()


@pytest.mark.parametrize("module", ["grain", "tokenizers"])
def test_missing_extra_is_named(module, tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    assert "sparsejax[text]" in refused(
        capsys, "train", "sprout", "--data", tmp_path, "--out", tmp_path / "run"
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    config = SproutConfig(vocab_size=9, d_model=8, d_ff=16, n_heads=2, n_layers=1, max_len=8)
    params = SproutLM(config).init(jax.random.key(0), np.zeros((1, 2), int))["params"]
    # A head that says: red, then blue, then -ish, whatever is read.
    params["head"] = {"kernel": np.zeros((8, 9), np.float32), "bias": np.float32([0, 0, 0, 0, 0, 9, 8, 7, 0])}
    metadata = {"tokenizer": wordpiece_from_vocabulary(WORDS)}
    sj.save(
        sj.Checkpoint("sprout", "v1", config, params, metadata), folder := tmp_path_factory.mktemp("c") / "ck"
    )
    return folder


def test_masks_are_filled(saved, capsys):
    assert run(["fill-mask", saved, "blue [MASK] is [MASK] .", "--k", 3, "--top_k", 4]) == 0
    rows = [line.strip().split(maxsplit=3) for line in capsys.readouterr().out.strip().splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        [mask, word] for mask in "12" for word in ("red", "blue", "##ish")
    ]
    assert rows[1][3] == "blue red is [MASK] ."
    assert rows[3][3] == "blueish is [MASK] ."
    chances = np.exp([9, 8, 7]) / (np.exp([9, 8, 7]).sum() + 6)
    found = fill_mask(sj.load(saved), "[MASK]", 3)[0]
    np.testing.assert_allclose([guess.probability for guess in found], chances, rtol=1e-5)
    assert [guess.id for guess in found] == [5, 6, 7]


def test_what_cannot_be_filled_is_told(saved, tmp_path, capsys):
    assert "there is no [MASK] in the text" in refused(capsys, "fill-mask", saved, "red")
    assert "k must be between 1 and" in refused(capsys, "fill-mask", saved, "[MASK]", "--k", 0)
    assert "max_len=8" in refused(capsys, "fill-mask", saved, "[MASK]" + " red" * 9)
    assert "top_k must be at least 0" in refused(capsys, "fill-mask", saved, "[MASK]", "--top_k", -1)
    assert run(["fill-mask", saved]) == 2
    capsys.readouterr()
    ck = sj.load(saved)
    bare = tmp_path / "bare"
    sj.save(sj.Checkpoint("sprout", "v1", ck.config, ck.params), bare)
    assert "the checkpoint names no tokenizer" in refused(capsys, "fill-mask", bare, "[MASK]")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*WORDS, "green"]))
    told = refused(capsys, "fill-mask", bare, "[MASK]", "--tokenizer", vocabulary)
    assert "the tokenizer has 10 tokens, the network 9" in told
