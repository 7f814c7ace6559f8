"""``sparsejax train ten``: exit codes, one-line errors, what a finished run says."""

from __future__ import annotations

import importlib.util

import pytest

from tests.command_line import refused, run


def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, capsys):
    pytest.importorskip("grain")
    text, out = tmp_path / "text.txt", tmp_path / "run"
    given = ("--out", out, "--no-plots", "--data")
    assert "there is no such file or folder" in refused(capsys, "train", "ten", *given, tmp_path / "none.txt")
    text.write_text(" \n")
    assert "holds no text" in refused(capsys, "train", "ten", *given, text)
    text.write_text("short" * 30)
    assert "give more text or a smaller --seq-len" in refused(capsys, "train", "ten", *given, text)
    (tmp_path / "broken.json").write_text("{")
    told = refused(capsys, "train", "ten", *given, text, "--tokenizer", tmp_path / "broken.json")
    assert "broken.json: is no tokenizer.json" in told
    text.write_bytes(b"\xff" * 9000)  # no UTF-8, but bytes
    assert "no preset is called 'huge'" in refused(capsys, "train", "ten", *given, text, "--preset", "huge")
    assert "is a file; give a folder" in refused(
        capsys, "train", "ten", "--out", text, "--no-plots", "--data", text
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("module", "told"), [("grain", "sparsejax[text]"), ("matplotlib", "give --no-plots")]
)
def test_missing_extra_is_named(module, told, tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    assert told in refused(capsys, "train", "ten", "--data", tmp_path, "--out", tmp_path / "run")


def test_wrong_usage_exits_with_2(capsys):
    assert run(["train", "ten", "--data", "x"]) == 2
    assert "--out" in capsys.readouterr().err
