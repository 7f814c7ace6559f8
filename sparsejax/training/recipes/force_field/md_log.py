"""The table of ``sparsejax md --log``: it grows with the run, and goes on behind the rows of a saved one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from sparsejax.models.force_field.md.run import Records
from sparsejax.training.appended_file import AppendedFile

_COLUMNS, _OF_CRYSTALS = ("potential", "kinetic", "temperature", "conserved"), ("pressure", "volume")


class DynamicsLog:
    """Records as CSV, a row per step and replica, in eV, K, eV/A^3 and A^3; `append` begins the file.

    Args:
      path: file, in a folder that is there.
      timestep: fs.
      replicas: whether rows say of which copy they are.
      periodic: whether there are pressure and volume.
      keep: rows up to this step stay, of a run that goes on from there; None starts anew.

    Raises:
      ValueError: the file to go on with is no such table; one line.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> path = Path(tempfile.mkdtemp()) / "run.csv"
      >>> names = ("potential", "kinetic", "temperature", "conserved")
      >>> with DynamicsLog(path, timestep=0.5, replicas=False, periodic=False) as log:
      ...     log.append({"step": np.array([10]), **dict.fromkeys(names, np.array([[1.5]]))})
      >>> print(path.read_text())
      step,time_fs,potential,kinetic,temperature,conserved
      10,5,1.5,1.5,1.5,1.5
      <BLANKLINE>
    """

    def __init__(
        self, path: Path, *, timestep: float, replicas: bool, periodic: bool, keep: int | None = None
    ):
        self._extra = _OF_CRYSTALS if periodic else ()
        header = ["step", "time_fs", *(["replica"] if replicas else []), *_COLUMNS, *self._extra]
        self._path, self._timestep, self._replicas = path, timestep, replicas
        self._kept = [header, *([] if keep is None else _kept(path, header, keep))]
        self._file: AppendedFile | None = None
        self._stack = ExitStack()

    def append(self, records: Records) -> None:
        """Write the rows of records (r, g) and, of crystals, pressure and volume (r,).

        Raises:
          OSError: the disk refuses.
        """
        rows = []
        for row, step in enumerate(records["step"]):
            of_all = [records[name][row] for name in self._extra]
            for copy in range(records["potential"].shape[1]):
                values = [*(records[name][row, copy] for name in _COLUMNS), *of_all]
                which = [copy] if self._replicas else []
                time = f"{step * self._timestep:g}"
                rows.append([int(step), time, *which, *(f"{value:.10g}" for value in values)])
        self._opened().write(_text(rows))

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        self._opened().sync()

    def __enter__(self) -> DynamicsLog:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after a run without errors there is one."""
        if error is None:
            self._opened()
        self._stack.__exit__(kind, error, trace)

    def _opened(self) -> AppendedFile:
        # Only now: a run that is refused leaves the table of an earlier one as it is.
        if self._file is None:
            self._file = self._stack.enter_context(AppendedFile(self._path, _text(self._kept)))
        return self._file


def _kept(path: Path, header: Sequence[str], keep: int) -> list[list[str]]:
    """Rows up to a step; what a kill left after them is not looked at."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="ascii", errors="replace") as file:
        names, *rows = list(csv.reader(file)) or [[]]
    if names != list(header):
        raise ValueError(f"{path}: its columns are not those of this run; give another file with --log")
    kept = []
    for row in rows:
        if len(row) != len(header):
            break
        if not row[0].isdecimal():
            raise ValueError(
                f"{path}: {row[0]!r} in its first column is no step; give another file with --log"
            )
        if int(row[0]) > keep:
            break
        kept.append(row)
    return kept


def _text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
