"""A CSV table with one row per round that a kill and a resumption leave without gaps or repetitions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.training.appended_file import AppendedFile
from sparsejax.training.errors import RunError

LOG_FILE = "log.csv"
ROUND = "round"
"""First column: rounds done, from 1."""


class RoundLog(AppendedFile):
    """Appends rows to a CSV file, after dropping those that a resumed run will write again.

    Args:
      path: file; created if needed.
      columns: names, without the round.
      keep: rounds that are done: rows beyond them go.

    Raises:
      RunError: the file has other columns, or lacks a row of the rounds done.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "log.csv"
      >>> with RoundLog(path, ("loss",)) as log:
      ...     log.append(0, {"loss": [0.5, 0.25]})
      >>> read_log(path)["loss"].tolist()
      [0.5, 0.25]
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0):
        self._columns, header = tuple(columns), (ROUND, *columns)
        super().__init__(path, _text([header, *(_kept(path, header, keep) if keep else [])]))

    def append(self, done: int, rows: Mapping[str, Any]) -> None:
        """Write rows (n,) per column, those of the rounds after the ``done`` first ones.

        Raises:
          OSError: the disk refuses.
        """
        table = [np.asarray(rows[column]) for column in self._columns]
        rounds = enumerate(zip(*table, strict=True), start=done + 1)
        self.write(_text([number, *map(cell, values)] for number, values in rounds))


def cell(value: Any) -> str:
    """A number as text that gives its float32 back; empty for NaN."""
    return "" if np.isnan(value) else f"{value:.9g}"


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns (n,) of a log, the round included; empty cells are NaN.

    Raises:
      RunError: the file is no such table.
    """
    with open(path, newline="", encoding="ascii") as file:
        names, *rows = list(csv.reader(file)) or [[]]
    if not names or names[0] != ROUND or any(len(row) != len(names) for row in rows):
        raise RunError(f"{path}: is not a log of rounds")
    try:
        table = np.array([[float(text or "nan") for text in row] for row in rows]).reshape(-1, len(names))
    except ValueError as error:
        raise RunError(f"{path}: is not a log of rounds: {error}") from error
    return dict(zip(names, table.T, strict=True))


def _kept(path: Path, columns: Sequence[str], keep: int) -> list[list[str]]:
    if not path.exists():
        raise RunError(f"{path}: is gone, and with it the rows of {keep} rounds; start again elsewhere")
    with open(path, newline="", encoding="ascii", errors="replace") as file:
        names, *rows = list(csv.reader(file)) or [[]]
    if names != list(columns):
        raise RunError(f"{path}: its columns are not those of this run; start again elsewhere")
    kept = rows[:keep]
    if [row[0] for row in kept if row] != [str(number) for number in range(1, keep + 1)]:
        raise RunError(f"{path}: lacks rows of the {keep} rounds that are done; start again elsewhere")
    return kept


def _text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
