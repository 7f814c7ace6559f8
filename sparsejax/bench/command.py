"""What ``sparsejax bench`` does: rows of one benchmark, or the report on force fields."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from sparsejax.bench.report import Row, show_rows, update_readme, write_rows

_OF_SEVERAL = "force_field"
"""The benchmark that takes more than one checkpoint, and has a report."""


def run_bench(
    name: str, checkpoints: Sequence[Path] = (), *, quick: bool = False, threads: int = 1
) -> list[Row]:
    """Rows of a benchmark.

    Args:
      name: of a module of `sparsejax.bench` with a function ``run``.
      checkpoints: nets to measure; several of "force_field" only.
      quick: fewer repetitions and smaller sizes.
      threads: for every contestant alike.

    Raises:
      ValueError: more than one checkpoint of another benchmark.
    """
    if name != _OF_SEVERAL and len(checkpoints) > 1:
        raise ValueError(f"bench {name} measures one checkpoint, and {len(checkpoints)} are given")
    chosen = checkpoints if name == _OF_SEVERAL else next(iter(checkpoints), None)
    measure = importlib.import_module(f"sparsejax.bench.{name}").run
    return measure(quick=quick, checkpoint=chosen, threads=threads)


def bench(
    name: str,
    checkpoints: Sequence[Path] = (),
    *,
    json_file: Path | None = None,
    readme: Path | None = None,
    report: Path | None = None,
    data: Path | None = None,
    quick: bool = False,
    threads: int = 1,
) -> None:
    """Measure, and show and write what was found; see ``sparsejax bench --help``.

    Raises:
      ValueError: arguments that do not go together, or a README without its marks.
      CheckpointError: a checkpoint cannot be read.
      DatasetError: the data of a report cannot be read.
      OSError: a file cannot be written.
    """
    if report is None and data is not None:
        raise ValueError("--data goes with --report DIR")
    if report is not None:
        if name != _OF_SEVERAL:
            raise ValueError(f"there is no report of {name}: sparsejax bench {_OF_SEVERAL} --report DIR")
        from sparsejax.bench.force_field_report import write_report

        print(*write_report(report, checkpoints, data, quick=quick), sep="\n")
        return
    rows = run_bench(name, checkpoints, quick=quick, threads=threads)
    show_rows(rows)
    if json_file is not None:
        write_rows(rows, json_file)
    if readme is not None:
        update_readme(readme, name, rows)
