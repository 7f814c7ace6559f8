"""`sparsejax train` and `sparsejax plot`: what a user gets with good and with bad input."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.training.recipes.ultra_sparse import recipe
from tests.command_line import run

SMALL = ["--seeds", "3", "--steps", "600", "--hidden-size", "3", "--problem-option", "samples=60"]
PLAIN = [*SMALL, "--no-baselines", "--no-plots"]


def _train(out, *arguments) -> int:
    return run(["train", "ultra-sparse", "--out", out, *arguments])


def _contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert _train(folder, *SMALL, "--problem", "friedman1", "--trainer", "anneal", "--plain") == 0
    return folder


def test_run_leaves_logs_report_plots_and_the_best_net(trained):
    report = json.loads((trained / "report.json").read_text())
    assert len(report["seeds"]) == 3
    assert report["test"]["low"] < report["test"]["mean"] < report["test"]["high"]
    assert {model["name"] for model in report["baselines"]} >= {"lasso", "ridge", "dense Adam"}
    markdown = (trained / "report.md").read_text()
    assert "| lasso |" in markdown
    assert "bits with indices" in markdown
    assert len((trained / "log.csv").read_text().splitlines()) == 1 + 2
    assert sj.load(trained / "best").apply(np.zeros((2, 20), np.float32)).shape == (2, 1)
    assert len(list((trained / "plots").glob("*.png"))) == 4


def test_finished_run_says_so_and_stays_as_it_is(trained, capsys):
    before = _contents(trained)
    assert _train(trained, *SMALL, "--resume") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert _train(trained, *SMALL) == 1
    assert "holds a run already (finished)" in capsys.readouterr().err
    assert _train(trained, *SMALL, "--resume", "--seed", "7") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "holds another run: seed is 0 there and 7 here" in lines[0]
    assert _contents(trained) == before


def test_plot_draws_again(trained, capsys):
    picture = trained / "plots" / "convergence.png"
    before = picture.read_bytes()
    picture.unlink()
    assert run(["plot", trained]) == 0
    assert str(picture) in capsys.readouterr().out
    assert picture.read_bytes() == before


def test_quiet_run_prints_nothing(tmp_path, capsys):
    assert _train(tmp_path / "run", *PLAIN, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


BAD = {
    "problem": (["--problem", "fridman1"], "no problem is called 'fridman1'; near it: friedman1"),
    "trainer": (["--trainer", "aneal"], "no trainer is called 'aneal'; near it: anneal"),
    "rule": (["--rule", "cor"], "mutation rule 'cor' is not one of core"),
    "inputs": (["--inputs-per-neuron", "21"], "reads 21 inputs per neuron of only 20"),
    "no inputs": (["--inputs-per-neuron", "0"], "0"),
    "no neurons": (["--hidden-size", "0"], "0"),
    "rows": (["--hidden-size", "50"], "60 training rows, fewer than the net's 201 parameters"),
    "seeds": (["--seeds", "0"], "--seeds must be at least 1, not 0"),
    "seed": (["--seed", "-1"], "--seed must be between 0 and"),
    "steps": (["--steps", "-5"], "at least 1"),
    "other trainer's": (["--trainer", "genetic"], "trainer 'genetic' takes no --steps"),
    "devices": (["--devices", "99"], "99 devices are asked for"),
    "option": (["--problem-option", "noise"], "--problem-option takes NAME=VALUE"),
    "unknown option": (["--problem-option", "nois=1"], "no option 'nois'; near it: noise"),
    "kind of option": (["--problem-option", "noise=loud"], "option 'noise' is 'loud'"),
    "temperature": (["--trainer-option", "initial_temperature=0"], "temperatures must be positive"),
    "seed of the problem": (["--problem-option", "seed=3"], "seed is given with --problem-seed"),
    "twice": (["--trainer-option", "steps=5"], "given twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_start_is_one_line_and_writes_nothing(case, tmp_path, capsys):
    arguments, told = BAD[case]
    assert _train(tmp_path / "run", *PLAIN, *arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(re.escape(told), lines[0]), lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_rows_with_nan_are_refused(part, tmp_path, capsys, monkeypatch):
    real = recipe.make_problem

    def spoilt(*arguments, **options):
        problem = real(*arguments, **options)
        getattr(problem, part).features[4, 2] = np.nan
        return problem

    monkeypatch.setattr(recipe, "make_problem", spoilt)
    assert _train(tmp_path / "run", *PLAIN) == 1
    error = capsys.readouterr().err
    assert "NaN or infinity in 1 of" in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("hello")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert _train(out, *PLAIN) == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    assert _train(tmp_path / "mine", *PLAIN, "--resume") == 1
    assert "holds no run" in capsys.readouterr().err
    assert len(_contents(tmp_path)) == 2


@pytest.mark.parametrize(
    ("module", "told"), [("sklearn", "sparsejax[sklearn]"), ("matplotlib", "sparsejax[plots]")]
)
def test_missing_extra_is_named_before_anything_runs(module, told, tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    assert _train(tmp_path / "run", *SMALL) == 1
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "nonsense"],
        ["train", "ultra-sparse"],
        ["train", "ultra-sparse", "--out", "x", "--steps", "many"],
        ["plot"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert "sparsejax" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_plot_of_no_run_is_told(tmp_path, capsys):
    assert run(["plot", tmp_path]) == 1
    assert "holds no run" in capsys.readouterr().err
