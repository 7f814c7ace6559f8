"""`sparsejax bench`: all or one, measured or recorded, and what is refused before anything is measured."""

from __future__ import annotations

import dataclasses

import pytest

from sparsejax.bench import command
from sparsejax.bench.command import Outputs
from sparsejax.bench.records import BENCHES, recorded
from sparsejax.bench.report import markdown_table, read_rows
from tests.bench.test_report import LIMIT, TIME
from tests.test_cli import run


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
        ("all", {"checkpoints": ["a.pt"]}, "bench all measures the shipped checkpoints"),
        ("ten", {"from_results": True, "quick": True}, "--quick does not go with it"),
        ("ten", {"from_results": True, "checkpoints": ["a.pt"]}, "--checkpoint does not go with it"),
        ("ten", {"from_results": True, "outputs": ("json", None, None)}, "--json does not go with it"),
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
