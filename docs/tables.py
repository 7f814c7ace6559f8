"""Tables that mkdocs puts into the pages while it builds them, so that no copy of them can grow old.

A line ``<!-- rows of NAME -->`` becomes the table of ``sparsejax/bench/results/NAME.json``,
``<!-- keys of KIND -->`` the tensors that the importer looks for, by variant of a family, and
``<!-- backends of OP -->`` what the backends of an op mean on each platform.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from sparsejax.bench.report import markdown_table, read_rows
from sparsejax.checkpoint.registry import find
from sparsejax.ops import backends

RESULTS = Path(__file__).resolve().parents[1] / "sparsejax" / "bench" / "results"

_LINE = re.compile(r"^<!-- (rows|keys|backends) of (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **page: Any) -> str:
    """What mkdocs calls with the text of every page."""
    del page
    return filled(markdown)


def filled(markdown: str) -> str:
    """The text with its tables.

    Raises:
      FileNotFoundError: there are no results of this name.
      UnknownFormatError: there is no family of this kind.
      AttributeError: there is no op of this name.
    """
    tables = {"rows": rows_of, "keys": keys_of, "backends": backends_of}
    return _LINE.sub(lambda found: tables[found[1]](found[2]), markdown)


def rows_of(name: str) -> str:
    """The table of a benchmark, as ``sparsejax bench`` writes it, and the machine below it."""
    table, _, footer = markdown_table(read_rows(RESULTS / f"{name}.json")).partition("\n\n")
    return table + "\n\n" + "".join(f"- {line}\n" for line in footer.splitlines())


def keys_of(kind: str) -> str:
    """The keys of every variant of a family."""
    lines = ["| variant | tensors that tell it |", "|---|---|"]
    for variant, keys in find(kind).layouts.items():
        lines.append(f"| `{variant}` | {', '.join(f'`{key}`' for key in keys)} |")
    return "\n".join(lines) + "\n"


def backends_of(name: str) -> str:
    """What "auto", "xla" and "pallas" mean on each platform, and the names that an op knows besides."""
    op: backends.OpBackends = getattr(backends, name.upper())
    platforms = get_args(backends.Platform)
    lines = [f"| `{op.op}` | {' | '.join(platforms)} |", "|---" * (1 + len(platforms)) + "|"]
    for backend in ("auto", "xla", "pallas"):
        table = getattr(op, backend)
        if table:
            lines.append(f"| `{backend}` | {' | '.join(f'`{table[where]}`' for where in platforms)} |")
    return "\n".join([*lines, "", f"By name: {', '.join(f'`{own}`' for own in op.specific)}.", ""])
