"""The command line: what a user sees with good and with bad input."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import sparsejax as sj
from sparsejax import cli, console
from sparsejax.checkpoint import torch_file
from sparsejax.demo import DemoRow
from tests.command_line import run

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
SPARSE = SHIPPED / "ultra_sparse_sine.pt"


class _RunsCode:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def _state(**changes):
    state = {
        "input_indices": np.zeros((8, 2), np.int64),
        "w1": np.ones((8, 2), np.float32),
        "b1": np.zeros(8, np.float32),
        "w2": np.ones((1, 8), np.float32),
        "b2": np.zeros(1, np.float32),
    }
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


def _unsafe(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"w1": _RunsCode()}, protocol=2))
        archive.writestr("evil/version", "3\n")
        archive.writestr("evil/byteorder", "little")


def _truncated(path: Path) -> None:
    path.write_bytes(SPARSE.read_bytes()[:1500])


BAD_FILES = {
    "text": (lambda path: path.write_text("hello\n"), "text file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (_truncated, "truncated|ends|short"),
    "architecture": (
        lambda path: torch_file.write({"conv.weight": np.zeros((3, 3, 3, 3), np.float32)}, path),
        "no known layout has the tensors 'conv.weight'; nearest: ",
    ),
    "nan": (
        lambda path: torch_file.write(_state(w1=np.full((8, 2), np.nan, np.float32)), path),
        "16 of 16 values of 'w1'",
    ),
    "unsafe": (_unsafe, r"(posix|nt|os)\.system"),
    "directory": (lambda path: path.mkdir(), "directory"),
    "missing": (lambda path: None, "no such file"),
    "missing_key": (lambda path: torch_file.write(_state(b2=None), path), "'b2'"),
    "extra_key": (lambda path: torch_file.write(_state(foo=np.zeros(1, np.float32)), path), "'foo'"),
    "shape": (
        lambda path: torch_file.write(_state(b1=np.zeros(7, np.float32)), path),
        r"'b1'.*\(7,\).*\(8,\)",
    ),
    "index_range": (
        lambda path: torch_file.write(_state(input_indices=np.full((8, 2), -1)), path),
        "index table",
    ),
}
COMMANDS = {
    "inspect": lambda path, folder: ["inspect", str(path)],
    "convert": lambda path, folder: ["convert", str(path), str(folder / "converted")],
    "verify": lambda path, folder: ["verify", str(path)],
    "demo": lambda path, folder: ["demo", "--pt", str(path), "--out", str(folder / "demo")],
}
# What a header tells nothing about is no business of `inspect`, which reads no data.
_TOLD_ONLY_BY_DATA = {"nan", "missing_key", "extra_key", "shape", "index_range"}


CASES = [
    (bad, command)
    for bad in BAD_FILES
    for command in COMMANDS
    if not (command == "inspect" and bad in _TOLD_ONLY_BY_DATA)
]


@pytest.mark.parametrize(("bad", "command"), CASES)
def test_bad_file_ends_in_one_line_and_exit_code_1(bad, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{bad}.pt"
    make, expected = BAD_FILES[bad]
    make(path)
    assert run(COMMANDS[command](path, tmp_path)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert f"{bad}.pt" in lines[0]
    assert re.search(expected, lines[0]), lines[0]
    assert not (tmp_path / "converted").exists()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_file_without_permission_is_refused_in_one_line(command, tmp_path, capsys):
    path = tmp_path / "secret.pt"
    shutil.copy(SPARSE, path)
    run(["inspect", str(path)])
    path.chmod(0)
    was_root = os.geteuid() == 0
    capsys.readouterr()
    if was_root:
        os.seteuid(65534)
    try:
        code = run(COMMANDS[command](path, tmp_path))
    finally:
        if was_root:
            os.seteuid(0)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    assert len(lines) == 1
    assert "permission" in lines[0].lower()


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["inspect"], ["convert", "a"], ["verify", "a", "--tolerance", "x"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert run(arguments) == 2
    assert "sparsejax" in capsys.readouterr().err


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in cli._COMMANDS if f" {name} " not in text] == []


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_output_that_nobody_reads_ends_quietly(tmp_path, command):
    reading, writing = os.pipe()
    os.close(reading)
    model = tmp_path / "model"
    arguments = [command, str(SPARSE), *([str(model)] if command == "convert" else [])]
    done = subprocess.run(
        [sys.executable, "-c", "from sparsejax.cli import main; main()", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert model.is_dir() == (command == "convert")


def test_interrupted_command_ends_quietly_with_the_code_of_shells(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert run(["inspect", str(SPARSE)]) == 130
    assert capsys.readouterr() == ("", "")


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no such file"):
        cli.main(["--debug", "inspect", str(tmp_path / "missing.pt")])


def test_inspect_prints_kind_and_tensor_table(capsys):
    assert run(["inspect", str(SPARSE)]) == 0
    text = capsys.readouterr().out
    assert "ultra_sparse/sparse" in text
    assert "input_indices" in text
    assert "torch._utils._rebuild_tensor_v2" in text


def test_long_tables_are_cut_and_say_so(capsys):
    console.show_report(sj.inspect(SPARSE), max_rows=2)
    *_, first, second, rest = capsys.readouterr().out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("w1", "b1")
    assert rest == "... and 3 more tensors"


def test_inspect_cuts_no_key(tmp_path, capsys):
    keys = [f"encoder.{'block.' * count}weight" for count in (10, 40)]
    torch_file.write({key: np.zeros((3, 3), np.float32) for key in keys}, tmp_path / "long.pt")
    assert run(["inspect", str(tmp_path / "long.pt")]) == 1
    text = capsys.readouterr().out
    assert f"\n{keys[0]} " in text and "…" not in text
    assert keys[1] in "".join(line.split("  ")[0].strip() for line in text.splitlines())


def test_convert_there_and_back_keeps_every_bit(tmp_path, capsys):
    assert run(["convert", str(SPARSE), str(tmp_path / "model")]) == 0
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "again.pt")]) == 0
    before, after = torch_file.read(SPARSE), torch_file.read(tmp_path / "again.pt")
    assert list(before) == list(after)
    assert before["stats"] == after["stats"]
    for key, array in before["state_dict"].items():
        assert array.tobytes() == after["state_dict"][key].tobytes()
    capsys.readouterr()


def test_verify_compares_with_a_reference(tmp_path, capsys):
    reference = SHIPPED / "ultra_sparse_sine.expected.npz"
    assert run(["verify", str(SPARSE), "--reference", str(reference)]) == 0
    assert "largest difference" in capsys.readouterr().out
    with np.load(reference) as stored:
        np.savez(tmp_path / "wrong.npz", x=stored["x"], outputs=stored["outputs"] + 1e-3)
    assert run(["verify", str(SPARSE), "--reference", str(tmp_path / "wrong.npz")]) == 1
    assert "reference failed" in capsys.readouterr().err
    loose = ["--tolerance", "2e-3"]
    assert run(["verify", str(SPARSE), "--reference", str(tmp_path / "wrong.npz"), *loose]) == 0
    assert "(limit 0.002)" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["no_outputs", "no_inputs", "text"])
def test_unusable_reference_is_told_in_one_line(content, tmp_path, capsys):
    path = tmp_path / "reference.npz"
    if content == "text":
        path.write_text("hello")
    else:
        np.savez(path, **{"x" if content == "no_outputs" else "outputs": np.zeros(3, np.float32)})
    assert run(["verify", str(SPARSE), "--reference", str(path)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "reference.npz" in lines[0]


def test_override_without_value_is_refused(tmp_path, capsys):
    assert run(["convert", str(SPARSE), str(tmp_path / "out"), "--override", "input_size"]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err


def test_demo_reports_every_shipped_file(tmp_path, capsys):
    assert run(["demo", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    entries = json.loads((SHIPPED / "manifest.json").read_text())["checkpoints"]
    assert all(entry["file"] in text for entry in entries)
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert all(f"{entry['mse']:.3e}" in page for entry in entries if entry["kind"] == "ultra_sparse")
    assert "continues &#x27;Return the &#x27;" in page
    assert all(f"<td>sprout_words.pt</td><td>{share}%</td>" in page for share in (100, 50, 25, 10))


def test_demo_of_a_file_that_fails_ends_with_the_reason_and_a_report(tmp_path, capsys, monkeypatch):
    row = DemoRow("x.pt", "ten/modern", 7, "largest difference 0.5", False, "no built-in task", {1: 2.0})
    monkeypatch.setattr("sparsejax.demo.run_demo", lambda *_, **__: [row])
    monkeypatch.setattr("sparsejax.shipped.told_missing", lambda files: "y.pt is missing")
    assert run(["demo", "--out", tmp_path]) == 1
    shown = capsys.readouterr()
    assert shown.err == "sparsejax: x.pt: largest difference 0.5\n"
    assert "FAILED: largest" in shown.out and shown.out.splitlines()[-2] == "y.pt is missing"
    page = (tmp_path / "report.html").read_text()
    assert "FAILED: largest difference 0.5" in page and "No net of one variable to plot." in page


def test_convert_refuses_to_overwrite_a_foreign_directory(tmp_path, capsys):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    assert run(["convert", str(SPARSE), str(target)]) == 1
    assert (target / "thesis.tex").read_text() == "years of work"
    assert list(target.iterdir()) == [target / "thesis.tex"]
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
