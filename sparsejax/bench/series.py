"""Rows that differ in one size only, put together as curves over that size; and steps over devices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sparsejax.bench.report import Row

_SIZES = {
    "length T": (r"\bT=(\d+(?:,\d{3})*)", "T=…"),
    "batch": (r"\bbatch (\d+(?:,\d{3})*)", "batch …"),
    "molecules": (r"\b(\d+(?:,\d{3})*) molecules?(?: \([\d,]+ atoms\))?", "… molecules"),
    "tokens": (r"\b(\d+(?:,\d{3})*) tokens?\b", "… tokens"),
    "steps": (r"\bover (\d+(?:,\d{3})*) steps\b", "over … steps"),
    "blocks": (r"\b(\d+(?:,\d{3})*) (?=blocks of \d+ of [\d,]+)", "… "),
    "neurons": (r"\b(\d+(?:,\d{3})*) (?=neurons of [\d,]+)", "… "),
    "% active": (r"\b(\d+)% active", "…% active"),
    "% of the neurons": (r"\b(\d+)% of the neurons", "…% of the neurons"),
    "% of the blocks": (r"\b(\d+)% of the blocks", "…% of the blocks"),
    "% of all": (r"\b(\d+)%$", "…%"),
}
"""How the text of a case tells a size, and what stands in its place in the text of a curve."""

_SPREAD = re.compile(r"(?P<what>.+), (?P<way>weak|strong): .*?\b(?P<several>\d+ devices)\b")
"""How a row tells that it is about a step over several devices."""

_DEVICES = re.compile(r"(?:(\d+) processes of )?(\d+) devices")
_COST = "time over that of its work on one device"

_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Series:
    """Values over one size.

    Attributes:
      case: text of the rows, with dots in place of the size.
      size: what grows, such as "length T".
      unit: of the values.
      lines: by contestant: value by size, two or more sizes each, in rising order. "ours" is the first.
    """

    case: str
    size: str
    unit: str
    lines: Mapping[str, Mapping[float, float]]


def series_of(rows: Sequence[Row]) -> list[Series]:
    """The curves that are in the rows of one benchmark.

    Args:
      rows: in any order. A row can be a point of several curves, and of none; one about a step over several
        devices is a curve of its own, or one for each number of processes.

    Returns:
      curves of two sizes or more, by size in the order above, then those over devices, and by case in the
      order of the rows.

    Example:
      >>> where = {"peers": {}, "quality": {}, "device": "cpu", "threads": 1, "versions": {}}
      >>> rows = [Row(case=f"step, T={size:,}", unit="ms", ours=size / 8, **where) for size in (2048, 1024)]
      >>> series_of(rows)[0]
      Series(case='step, T=…', size='length T', unit='ms', lines={'ours': {1024.0: 128.0, 2048.0: 256.0}})
    """
    found = []
    for size, (pattern, told) in _SIZES.items():
        groups: dict[tuple[str, str], dict[float, Row]] = {}
        for row in _in_one_unit_of_time(rows):
            if match := re.search(pattern, row.case):
                value = float(match[1].replace(",", ""))
                case = row.case[: match.start()] + told + row.case[match.end() :]
                groups.setdefault((case, row.unit), {})[value] = row
        found += [
            Series(case, size, unit, lines)
            for (case, unit), points in groups.items()
            if "ours" in (lines := dict(_lines(points)))
        ]
    return [*found, *(curve for row in rows for curve in _over_devices(row))]


def _over_devices(row: Row) -> Iterator[Series]:
    """The curves of a row that tells what spreading a step costs: at one device it is 1 by definition."""
    told = _SPREAD.match(row.case)
    if told is None:
        return
    by_processes: dict[int, dict[float, float]] = {}
    for name, value in {**row.variants, told["several"]: row.ours}.items():
        if match := _DEVICES.fullmatch(name):
            processes = int(match[1] or 1)
            points = by_processes.setdefault(processes, {1.0: 1.0})
            points[float(processes * int(match[2]))] = value
    for processes, points in sorted(by_processes.items()):
        size = "devices" + f" of {processes} processes" * (processes > 1) + f", {told['way']}"
        yield Series(told["what"], size, _COST, {"ours": dict(sorted(points.items()))})


def _in_one_unit_of_time(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows with times in milliseconds, as far as they are needed here."""
    for row in rows:
        factor = _MILLISECONDS.get(row.unit)
        if factor is None:
            yield row
            continue
        peers = {name: None if value is None else value * factor for name, value in row.peers.items()}
        yield replace(row, unit="ms", ours=row.ours * factor, peers=peers)


def _lines(points: Mapping[float, Row]) -> Iterator[tuple[str, dict[float, float]]]:
    sizes = sorted(points)
    names = dict.fromkeys(name for size in sizes for name in points[size].peers)
    for name in ("ours", *names):
        values = {
            size: points[size].ours if name == "ours" else points[size].peers.get(name) for size in sizes
        }
        known = {size: value for size, value in values.items() if value is not None}
        if len(known) > 1:
            yield name, known
