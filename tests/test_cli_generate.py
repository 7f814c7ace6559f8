"""`sparsejax generate` and `sparsejax plot`: what a user gets with good and with bad input."""

from __future__ import annotations

import io
import json
import re
import sys

import jax
import jax.numpy as jnp
import pytest

import sparsejax as sj
from sparsejax import console
from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.ten.config import TemporalEigenstateConfig
from sparsejax.models.ten.generate import generate
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from sparsejax.plots import ten as plots
from sparsejax.training.text.tokenizer import ByteTokenizer
from tests.command_line import run

SIZES = {"dim": 16, "n_layers": 1, "num_eigenstates": 4, "n_heads": 2}


def _generate(path, prompt, *arguments) -> int:
    return run(["generate", "ten", "--checkpoint", path, "--prompt", prompt, *arguments])


def _checkpoint(metadata, **fields):
    config = TemporalEigenstateConfig.modern(**{**SIZES, "vocab_size": 258, **fields})
    init = jax.jit(TemporalEigenstateNetwork(config).init)
    params = init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return Checkpoint("ten", "modern", config, params, metadata)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A run's folder whose best network only writes letters."""
    ck = _checkpoint({"tokenizer": "bytes"})
    letters = jnp.isin(jnp.arange(258), jnp.arange(97, 123))[:, None]
    embedding = jnp.where(letters, ck.params["token_embedding"]["embedding"] * 1.6, 0)
    norm = {"scale": ck.params["final_norm"]["scale"], "bias": embedding[97:123].mean(axis=0)}
    params = {**ck.params, "token_embedding": {"embedding": embedding}, "final_norm": norm}
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text(json.dumps({"settings": {"family": "ten"}}))
    sj.save(ck.replace(params=params), folder / "best")
    return folder


def test_greedy_text_is_that_of_generate(network, capsys):
    assert _generate(network, "née", "--max-new-tokens", 20, "--temperature", 0) == 0
    text = capsys.readouterr().out
    prompt = list("née".encode())
    found = generate(sj.load(network / "best"), [prompt], max_new_tokens=20, temperature=0)
    assert text == ByteTokenizer().decode([*prompt, *found.tokens[0].tolist()]) + "\n"
    assert _generate(network / "best", "née", "--max-new-tokens", 20, "--temperature", 0, "--no-echo") == 0
    assert capsys.readouterr().out == text.removeprefix("née")


_AT_RANDOM = ("--max-new-tokens", 20, "--top-k", 5)


def test_draws_depend_on_the_seed_and_end_at_a_stop(network, capsys):
    texts = {}
    for seed in (0, 0, 1):
        assert _generate(network, "a", *_AT_RANDOM, "--seed", seed) == 0
        text = capsys.readouterr().out
        assert texts.setdefault(seed, text) == text
    assert texts[0] != texts[1]
    stop = texts[0][8:10]
    options = [*_AT_RANDOM, "--stop", "no such text", "--stop", stop]
    assert _generate(network, "a", *options) == 0
    assert capsys.readouterr().out == texts[0][: texts[0].index(stop, 1)] + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", -1], "temperature must be 0"),
        (["--top-k", 0], "top_k must be"),
        (["--top-p", 2], "top_p must be"),
        (["--repetition-penalty", 0], "repetition_penalty must be"),
        (["--max-new-tokens", 0], "max_new_tokens must be"),
        (["--stack", "long"], "two stacks"),
        (["--stop", ""], "--stop is empty"),
        (["--tokenizer", "missing.json"], "missing.json: cannot be read"),
        (["--override", "n_heads"], "NAME=VALUE"),
        (["--prompt", ""], "the prompt is empty"),
        (["--checkpoint", "missing"], "missing: .*no such file"),
        (["--checkpoint", "checkpoints/ultra_sparse_sine.pt"], "ultra_sparse_sine.pt"),
    ],
)
def test_wrong_input_is_told_in_one_line(network, arguments, message, capsys):
    assert _generate(network, "a", *arguments) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
    assert captured.out == ""


def test_missing_prompt_is_wrong_usage(network, capsys):
    assert run(["generate", "ten", "--checkpoint", str(network)]) == 2
    assert run(["generate"]) == 2
    assert "prompt" in capsys.readouterr().err


def test_plot_names_its_files_or_what_is_wrong(network, tmp_path, capsys, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure").Figure
    assert run(["plot", tmp_path]) == 1
    assert "holds no run" in capsys.readouterr().err
    monkeypatch.setattr(plots, "network_figures", lambda ck, name: {"eigenvalues": figure()})
    assert run(["plot", network / "best"]) == 0
    assert capsys.readouterr().out == f"{network / 'best' / 'plots' / 'eigenvalues.png'}\n"


def test_terminal_gets_no_control_characters(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    console.show_pieces("a\x1b[2J\n", iter(["b\tc\x07"]))
    assert sys.stdout.getvalue() == "a\\x1b[2J\nb\tc\\x07\n"
