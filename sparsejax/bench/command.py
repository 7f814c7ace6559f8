"""What ``sparsejax bench`` does: rows of one benchmark or of all, measured or recorded, shown and written."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsejax.bench.given import check_checkpoints
from sparsejax.bench.records import BENCHES, recorded
from sparsejax.bench.report import Row, around_table, show_rows, update_readme, write_rows
from sparsejax.training.run_checks import check_output

ALL = "all"
SIZES = "force_field_sizes"
"""The benchmark whose report also exports the networks and looks at their errors."""

_OF_SEVERAL = ("force_field", SIZES)
"""The benchmarks that take more than one checkpoint."""


@dataclass(frozen=True)
class Outputs:
    """Where rows go, besides the terminal.

    Attributes:
      json_file: file for the rows; of "all" a folder, for one file per benchmark.
      readme: Markdown file with the marks of the tables.
      report: folder for a report with pictures.
    """

    json_file: Path | None = None
    readme: Path | None = None
    report: Path | None = None

    def check(self, names: Sequence[str], *, folder: bool) -> None:
        """Find out before anything is measured whether the outputs can be written.

        Args:
          names: benchmarks.
          folder: whether ``json_file`` is one.

        Raises:
          ValueError: a file stands where a folder is needed, a folder cannot be made or written to, or the
            README lacks a mark.
          ModuleNotFoundError: a report is wanted, and matplotlib is missing.
        """
        if self.report is not None:
            importlib.import_module("matplotlib")
        if self.readme is not None:
            for name in names:
                around_table(self.readme, name)
        for flag, path, is_folder in (
            ("--json", self.json_file, folder),
            ("--readme", self.readme, False),
            ("--report", self.report, True),
        ):
            if path is not None:
                check_output(path, flag, folder=is_folder)


def run_bench(
    name: str, checkpoints: Sequence[Path] = (), *, quick: bool = False, threads: int = 1
) -> list[Row]:
    """Rows of a benchmark, measured.

    Args:
      name: one of `BENCHES`.
      checkpoints: nets to measure; several of the force field's benchmarks only.
      quick: fewer repetitions and smaller sizes.
      threads: for every contestant alike.

    Raises:
      ValueError: more than one checkpoint of another benchmark.
    """
    several = name in _OF_SEVERAL
    if not several and len(checkpoints) > 1:
        raise ValueError(f"bench {name} measures one checkpoint, and {len(checkpoints)} are given")
    chosen = checkpoints if several else next(iter(checkpoints), None)
    measure = importlib.import_module(f"sparsejax.bench.{BENCHES[name]}").run
    return measure(quick=quick, checkpoint=chosen, threads=threads)


def bench(
    name: str,
    checkpoints: Sequence[Path] = (),
    outputs: Outputs | None = None,
    *,
    data: Path | None = None,
    from_results: bool = False,
    quick: bool = False,
    threads: int = 1,
) -> None:
    """Measure, or read what is recorded, and show and write it; see ``sparsejax bench --help``.

    Args:
      name: of a benchmark, or "all".
      checkpoints: nets to measure.
      outputs: where rows go.
      data: labelled structures for the report of "force_field_sizes".
      from_results: take the recorded rows.
      quick: fewer repetitions and smaller sizes.
      threads: for every contestant alike.

    Raises:
      ValueError: arguments that do not go together, or a README without its marks.
      ProcessFailure: a benchmark's process failed.
      CheckpointError: a checkpoint cannot be read.
      DatasetError: the data of a report cannot be read.
      OSError: a file cannot be written.
    """
    outputs = outputs or Outputs()
    names = tuple(BENCHES) if name == ALL else (name,)
    _refuse_contradictions(name, checkpoints, outputs, data)
    if from_results:
        _refuse_measuring(checkpoints, outputs, quick=quick)
    check_checkpoints(name, checkpoints)
    outputs.check(names, folder=name == ALL)
    if name == SIZES and outputs.report is not None and not from_results:
        from sparsejax.bench.force_field.sizes import write_report as write_sizes

        print(*write_sizes(outputs.report, checkpoints, data, quick=quick), sep="\n")
        return
    found: dict[str, list[Row]] = {}
    for one in names:
        rows = recorded(one) if from_results else run_bench(one, checkpoints, quick=quick, threads=threads)
        found[one] = rows
        if not (from_results and (outputs.readme or outputs.report)):
            show_rows(rows)
        if outputs.json_file is not None:
            write_rows(rows, outputs.json_file / f"{one}.json" if name == ALL else outputs.json_file)
        if outputs.readme is not None:
            update_readme(outputs.readme, one, rows)
    if outputs.report is not None:
        from sparsejax.bench.report_page import write_report

        source = "Recorded rows." if from_results else "Measured by this run."
        print(*write_report(outputs.report, found, source), sep="\n")


def _refuse_contradictions(
    name: str, checkpoints: Sequence[Path], outputs: Outputs, data: Path | None
) -> None:
    if name == ALL and checkpoints:
        raise ValueError(
            "bench all measures the shipped checkpoints; name one benchmark to give --checkpoint"
        )
    if data is not None and (name != SIZES or outputs.report is None):
        raise ValueError(f"--data goes with bench {SIZES} --report DIR")
    if name == SIZES and outputs.report is not None and outputs.json_file is not None:
        raise ValueError(f"the report of {SIZES} has its times in report.json; leave out --json or --report")


def _refuse_measuring(checkpoints: Sequence[Path], outputs: Outputs, *, quick: bool) -> None:
    given = {"--checkpoint": checkpoints, "--quick": quick, "--json": outputs.json_file}
    for flag, value in given.items():
        if value:
            raise ValueError(f"--from-results measures nothing, so {flag} does not go with it")
