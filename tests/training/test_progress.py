"""What a user sees of a long run."""

from __future__ import annotations

import sys

import pytest

from sparsejax.training import progress


def _shown(capsys, style):
    with progress.shown_progress("toy", start=0, stop=3, style=style) as update:
        for done in (1, 2, 3):
            update(done, f"loss {done}")
    return capsys.readouterr().out


@pytest.mark.parametrize("style", ["plain", "auto"])
def test_lines_are_seldom_and_the_last_round_has_one(style, capsys):
    assert _shown(capsys, style) == "toy: round 3 of 3, loss 3\n"


def test_every_round_has_a_line_if_rounds_are_slow(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert len(_shown(capsys, "plain").splitlines()) == 3


def test_quiet_prints_nothing(capsys):
    assert _shown(capsys, "quiet") == ""


def test_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = _shown(capsys, "auto")
    assert "3/3" in text
    assert "loss 3" in text
