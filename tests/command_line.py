"""The command line as a user meets it: exit codes, and errors of one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparsejax import cli


def run(arguments: Iterable[Any]) -> int:
    """Exit code of one command."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def refused(capsys, *arguments: Any) -> str:
    """The one line that a command ends with, which has printed nothing else."""
    assert run(arguments) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and captured.out == ""
    return lines[0]
