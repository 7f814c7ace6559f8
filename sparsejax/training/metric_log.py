"""Metrics as JSON lines that a kill and a resumption leave without gaps or repetitions.

Beside the table of `logs`, which has the same columns in every row and a row for every round: here a line
holds what there is to tell about a step, and validation is told at some steps only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejax.training.appended_file import AppendedFile
from sparsejax.training.errors import RunError

METRICS_FILE = "metrics.jsonl"
STEP = "step"
"""First entry of every line: steps done, from 1."""


class MetricLog(AppendedFile):
    """Appends lines to a file, after dropping those that a resumed run will write again.

    Args:
      path: file; created if needed.
      keep: steps that are done: lines beyond them go.

    Raises:
      RunError: the file is gone or damaged, or lacks the last of the steps done.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> with MetricLog(path) as log:
      ...     log.append(1, {"loss": 0.5})
      >>> read_metrics(path)
      [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, path: Path, keep: int = 0):
        kept = _kept(path, keep) if keep else []
        super().__init__(path, "".join(map(_line, kept)))

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line; numbers that are not finite become null.

        Raises:
          OSError: the disk refuses.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.write(_line({STEP: step, **finite}))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a log, in order.

    Raises:
      RunError: the file is no such log.
    """
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{path}: is not a log of metrics: {error}") from error
    if not all(isinstance(row, dict) and isinstance(row.get(STEP), int) for row in rows):
        raise RunError(f"{path}: is not a log of metrics: a line has no step")
    return rows


def _kept(path: Path, keep: int) -> list[dict[str, Any]]:
    """Lines of the steps done; whatever a kill left after them is not looked at."""
    if not path.exists():
        raise RunError(f"{path}: is gone, and with it the metrics of {keep} steps; start again elsewhere")
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not isinstance(row.get(STEP), int) or row[STEP] > keep:
            break
        rows.append(row)
    if not rows or rows[-1][STEP] != keep:
        raise RunError(f"{path}: lacks metrics of the {keep} steps that are done; start again elsewhere")
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
