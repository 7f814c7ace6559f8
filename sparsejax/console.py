"""Terminal tables of the command line, made with rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparsejax.checkpoint.inspection import Report
from sparsejax.checkpoint.verification import Check
from sparsejax.demo import DemoRow


def show_report(report: Report, max_rows: int = 200) -> None:
    """Print what `inspect` found: a few lines of facts and the tensor table."""
    console = Console(highlight=False)
    facts = {
        "file": f"{report.path} ({report.file_format})",
        "kind": f"{report.kind}/{report.variant}" if report.kind else "unknown",
        "config": report.config,
        "container": report.container or "(bare)",
        "prefix": report.prefix,
        "beside it": ", ".join(report.metadata),
        "pickle globals": ", ".join(report.pickle_globals),
        "total": f"{report.num_values:,} values in {len(report.tensors)} tensors, {report.nbytes:,} bytes",
    }
    for name, value in facts.items():
        if value not in (None, ""):
            console.print(Text(f"{name:>14}  ") + _plain(str(value)), soft_wrap=True)
    table = Table("key", "shape", "dtype", "bytes", box=None, pad_edge=False)
    for row in report.tensors[:max_rows]:
        table.add_row(_plain(row.key), str(row.shape), row.dtype, f"{row.nbytes:,}")
    console.print(table)
    if len(report.tensors) > max_rows:
        console.print(f"... and {len(report.tensors) - max_rows} more tensors")


def show_checks(checks: Sequence[Check]) -> None:
    """Print the checks of `verify`, one line each."""
    console = Console(highlight=False)
    for check in checks:
        mark = Text("ok     ", "green") if check.passed else Text("FAILED ", "red")
        console.print(mark + _plain(f"{check.name}: {check.detail}"), soft_wrap=True)


def show_demo(rows: Sequence[DemoRow]) -> None:
    """Print the demo's table."""
    table = Table(
        "file", "family", "values", "verified", "result", "batch 1", "batch 4096", title="sparsejax demo"
    )
    for row in rows:
        times = (f"{row.microseconds[size]:.1f} us" for size in (1, 4096))
        verified = _plain(row.verified) if row.passed else Text("FAILED: ", "red") + _plain(row.verified)
        table.add_row(_plain(row.name), row.kind, str(row.parameters), verified, row.quality, *times)
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(width=160, highlight=False).print(table)


def _plain(text: str) -> Text:
    """Text from a file: no markup is read in it, and control characters are shown as escapes."""
    return Text("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))
