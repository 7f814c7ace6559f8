"""Rows of any benchmarks as one report: HTML that carries its pictures, Markdown beside them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsejax.bench.report import HEAD, Row, markdown_table, surroundings, table_cells
from sparsejax.bench.series import series_of
from sparsejax.checkpoint.native import durable
from sparsejax.plots.page import html_page, html_picture, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Benchmarks of sparsejax"

_PICTURES = {
    "ratios": (
        "Ours beside the peers",
        "Of every row the fastest peer, and those that a target is about; rows without a peer are left out.",
    ),
    "scaling": (
        "Over sizes",
        "Medians; points of a curve are rows that differ in one size only, or what one row tells of several "
        "numbers of devices.",
    ),
    "errors": (
        "Error beside speed",
        "Every peer of every row that has an error of its own: in the upper right ours is faster and more "
        "exact, in the lower left the peer is.",
    ),
}
_SUMMARY = ("benchmark", "rows", "targets met", "not met", "not measured")
_VERDICTS = (True, False, None)


def write_report(folder: Path, found: Mapping[str, Sequence[Row]], source: str) -> tuple[Path, ...]:
    """Write ``report.html``, ``report.md`` and the pictures.

    Args:
      folder: to write to; made if needed.
      found: rows by benchmark.
      source: where the rows come from, in words.

    Returns:
      the files.

    Raises:
      OSError: a file cannot be written.
      ModuleNotFoundError: matplotlib is missing.

    Example:
      >>> import tempfile
      >>> rows = {"sums": [Row("sum", "us", 2.0, {"numpy": 3.0}, {}, "cpu", 1, {})]}
      >>> [path.name for path in write_report(Path(tempfile.mkdtemp()), rows, "made up")]
      ['report.html', 'report.md', 'sums_ratios.png']
    """
    from sparsejax.plots.style import write_figures

    figures = {f"{name}_{what}": figure for name in found for what, figure in _figures(found[name]).items()}
    drawn = {path.stem: path for path in write_figures(folder, figures)}
    page, text = folder / "report.html", folder / "report.md"
    durable.replace_text(page, _html(found, source, drawn))
    durable.replace_text(text, _markdown(found, source, drawn))
    return (page, text, *drawn.values())


def summary(found: Mapping[str, Sequence[Row]]) -> list[tuple[str, ...]]:
    """A line per benchmark: its rows, and how many targets were met, missed and not measured.

    Args:
      found: rows by benchmark.

    Example:
      >>> summary({"sums": [Row("sum", "us", 2.0, {"numpy": 3.0}, {}, "cpu", 1, {})]})
      [('sums', '1', '0', '0', '0')]
    """
    lines = []
    for name, rows in found.items():
        verdicts = [row.met(target) for row in rows for target in row.targets]
        counts = (len(rows), *(verdicts.count(verdict) for verdict in _VERDICTS))
        lines.append((name, *(f"{count}" for count in counts)))
    return lines


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    from sparsejax.plots.benchmarks import error_beside_speed, ratio_bars, scaling_curves

    drawn = {
        "ratios": ratio_bars(rows),
        "scaling": scaling_curves(series_of(rows)),
        "errors": error_beside_speed(rows),
    }
    return {what: figure for what, figure in drawn.items() if figure is not None}


def _html(found: Mapping[str, Sequence[Row]], source: str, drawn: Mapping[str, Path]) -> str:
    parts = [f"<p>{html.escape(source)}</p>", html_table(_SUMMARY, summary(found))]
    for name, rows in found.items():
        parts.append(f'<h1 id="{name}">{html.escape(name)}</h1>')
        parts += [html_picture(drawn[stem], *_PICTURES[what]) for what, stem in _of(name, drawn)]
        parts += ["<h2>Rows</h2>", f'<div class="words">{html_table(HEAD, table_cells(rows))}</div>']
        parts += [f"<p>{html.escape(line)}</p>" for line in surroundings(rows)]
    return html_page(TITLE, "\n".join(parts))


def _markdown(found: Mapping[str, Sequence[Row]], source: str, drawn: Mapping[str, Path]) -> str:
    lines = [f"# {TITLE}", "", source, "", f"| {' | '.join(_SUMMARY)} |", "|---" * len(_SUMMARY) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in summary(found)]
    for name, rows in found.items():
        lines += ["", f"## {name}", ""]
        for what, stem in _of(name, drawn):
            title, note = _PICTURES[what]
            lines += [f"### {title}", "", note, "", f"![{title}]({drawn[stem].name})", ""]
        lines += ["### Rows", "", markdown_table(rows).rstrip()]
    return "\n".join([*lines, ""])


def _of(name: str, drawn: Mapping[str, Path]) -> list[tuple[str, str]]:
    """The kinds of pictures that a benchmark has, and their names."""
    return [(what, stem) for what in _PICTURES if (stem := f"{name}_{what}") in drawn]
