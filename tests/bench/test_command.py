"""`sparsejax bench`: all or one, measured or recorded, and what is refused before anything is measured."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from sparsejax.bench import command, given
from sparsejax.bench.command import Outputs
from sparsejax.bench.pinned import run_pinned
from sparsejax.bench.records import BENCHES, recorded
from sparsejax.bench.report import markdown_table, read_rows
from tests.bench.test_report import LIMIT, TIME
from tests.command_line import refused, run

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture
def measured(monkeypatch):
    """Benchmarks that take no time; what was asked for."""
    asked = []

    def instead(name, checkpoints=(), *, quick=False, threads=1):
        asked.append((name, tuple(checkpoints), quick, threads))
        return [dataclasses.replace(TIME, case=name), LIMIT]

    monkeypatch.setattr(command, "run_bench", instead)
    return asked


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    marks = (f"<!-- bench:{name}:begin -->\n<!-- bench:{name}:end -->\n" for name in BENCHES)
    path.write_text("before\n" + "".join(marks) + "after\n")
    return path


@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_runs_by_its_name(name, monkeypatch):
    def run(**asked):
        assert asked == {"quick": False, "checkpoint": nothing, "threads": 3}
        return [TIME]

    nothing = () if name == "force_field" else None
    monkeypatch.setattr(importlib.import_module(f"sparsejax.bench.{BENCHES[name]}"), "run", run)
    assert command.run_bench(name, threads=3) == [TIME]


def test_all_measures_every_benchmark_and_writes_rows_tables_and_one_report(measured, readme, tmp_path):
    pytest.importorskip("matplotlib")
    outputs = Outputs(tmp_path / "rows", readme, tmp_path / "report")
    command.bench("all", outputs=outputs, quick=True, threads=2)
    assert measured == [(name, (), True, 2) for name in BENCHES]
    assert [read_rows(tmp_path / "rows" / f"{name}.json")[0].case for name in BENCHES] == list(BENCHES)
    assert all(f"\n| {name} | 10.0 us" in readme.read_text() for name in BENCHES)
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(f'<h1 id="{name}">' in page for name in BENCHES) and "Measured by this run." in page


def test_recorded_rows_are_taken_without_measuring(measured, readme, tmp_path, capsys):
    command.bench("all", outputs=Outputs(readme=readme), from_results=True)
    assert measured == []
    assert all(markdown_table(recorded(name)) in readme.read_text() for name in BENCHES)
    assert capsys.readouterr().out == ""
    command.bench("ultra_sparse", from_results=True)
    assert "65,536" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("all", {"checkpoints": [Path("a.pt")]}, "bench all measures the shipped checkpoints"),
        ("ten", {"from_results": True, "quick": True}, "--quick does not go with it"),
        ("ten", {"from_results": True, "checkpoints": [Path("a.pt")]}, "--checkpoint does not go with it"),
        ("ten", {"from_results": True, "outputs": ("json", None, None)}, "--json does not go with it"),
        ("ten", {"checkpoints": [Path("a.pt")]}, "bench ten measures networks of its own; leave out"),
        ("scaling", {"checkpoints": [Path("a.pt")]}, "bench scaling measures networks of its own; leave out"),
        ("ten", {"data": "data.h5"}, "--data goes with bench force_field_sizes --report DIR"),
        ("force_field_sizes", {"data": "data.h5"}, "--data goes with bench force_field_sizes --report DIR"),
        ("force_field_sizes", {"from_results": True}, "no rows of force_field_sizes are recorded"),
        ("force_field_sizes", {"outputs": ("json", None, "out")}, "leave out --json or --report"),
        ("all", {"outputs": ("file", None, None)}, "file: is a file; give a folder with --json"),
        ("ten", {"outputs": (None, None, "file")}, "file: is a file; give a folder with --report"),
        (
            "ten",
            {"outputs": (None, None, "file/inner")},
            "inner: cannot be made .Not a directory.; give another",
        ),
        ("ten", {"outputs": ("folder", None, None)}, "folder: is a folder; give a file with --json"),
        ("ten", {"outputs": ("file/rows.json", None, None)}, "file: is a file; give a folder with --json"),
        ("ten", {"outputs": (None, "file", None)}, "file has no lines <!-- bench:ten:begin -->"),
    ],
)
def test_what_does_not_go_together_is_told_before_measuring(
    measured, tmp_path, monkeypatch, *, name, options, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "folder").mkdir()
    given = [None if path is None else tmp_path / path for path in options.pop("outputs", (None,) * 3)]
    with pytest.raises(ValueError, match=words) as caught:
        command.bench(name, outputs=Outputs(*given), **options)
    assert "\n" not in str(caught.value)
    assert measured == []


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("sprout", "missing.pt", "missing.pt: no such file"),
        ("force_field", "text.pt", "text.pt: .*text file"),
        ("sprout", "dense_sine.pt", "dense_sine.pt: holds ultra_sparse/dense; bench sprout measures sprout"),
        ("ultra_sparse", "dense_sine.pt", "bench ultra_sparse measures a sparse layer of 256 inputs below"),
        ("sprout", "sprout_words.pt", "sprout_words.held_out.npz: no such file"),
        ("sparse_inference", "llama_reglu.gguf", "llama_reglu.held_out.npz: has no array 'tokens'"),
    ],
)
def test_checkpoints_are_looked_at_before_measuring(measured, tmp_path, capsys, *, name, file, words):
    (tmp_path / "text.pt").write_text("text\n")
    np.savez(tmp_path / "llama_reglu.held_out.npz", read=np.zeros(1))
    if (shipped := SHIPPED / file).exists():
        (tmp_path / file).symlink_to(shipped)
    assert re.search(words, refused(capsys, "bench", name, "--checkpoint", tmp_path / file))
    assert measured == []


@pytest.mark.parametrize(("name", "pattern"), [("sprout", "sprout*.pt"), ("sparse_inference", "llama*.gguf")])
def test_shipped_networks_may_be_given(measured, name, pattern, capsys):
    for path in given.networks_with_text(pattern, None):
        assert run(["bench", name, "--checkpoint", path]) == 0
        assert measured.pop()[:2] == (name, (path,))
    capsys.readouterr()


def test_readme_must_be_writable(measured, readme, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != readme.parent)
    with pytest.raises(ValueError, match="cannot be written to; give another place with --readme"):
        command.bench("ten", outputs=Outputs(readme=readme))
    assert measured == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("FileNotFoundError('a.npz: no such file')", "sparsejax: failing: a.npz: no such file"),
        ("KeyError('x')", "sparsejax: the benchmark process of failing ended with code 1; its words"),
        ("ModuleNotFoundError('no numba', name='numba')", "no numba; install the extra that has it"),
    ],
)
def test_a_failed_process_is_told_in_one_line(tmp_path, monkeypatch, capfd, *, error, words):
    (tmp_path / "failing.py").write_text(f"def measure(**options):\n    raise {error}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(command, "run_bench", lambda *_, **__: run_pinned("failing", {}))
    assert run(["bench", "ten"]) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert words in lines[-1]
    traced = "Traceback (most recent call last):" in lines
    assert traced == error.startswith("KeyError") and (traced or len(lines) == 1)


def test_one_checkpoint_for_one_benchmark():
    with pytest.raises(ValueError, match="measures one checkpoint"):
        command.run_bench("ten", ["a", "b"])


def test_the_command_line_passes_everything_on(measured, readme, tmp_path, capsys):
    arguments = ["--json", str(tmp_path / "ten.json"), "--readme", str(readme), "--quick", "--threads", "2"]
    assert run(["bench", "ten", *arguments]) == 0
    assert measured == [("ten", (), True, 2)]
    assert read_rows(tmp_path / "ten.json")[0].case == "ten"
    assert run(["bench", "all", "--from-results", "--quick"]) == 1
    assert "--quick does not go with it" in capsys.readouterr().err
