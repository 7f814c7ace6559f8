"""Rows of a benchmark: as JSON, on a terminal, and as the table of the README."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsejax.checkpoint.native import durable

HEAD = ("case", "ours", "peers", "error", "target")
"""The columns of a table of rows."""

_LARGER_IS_BETTER = ("GB/s", "tokens/s", "proposals/s", "accuracy", "% of copy bandwidth")
_ERRORS, _SHARES = ("MSE",), ("accuracy",)
_RELATIVE = ("x", "% of the layer", "% of the step")


@dataclass(frozen=True)
class Target:
    """What was aimed at.

    Attributes:
      peer: the peer to compare with; the best of all peers whose name starts with it. None: no peer.
      at_least: how many times faster than the peer.
      at_most: largest value of ours, for targets without a peer.
      no_less: smallest value of ours, for targets without a peer where more is better.
    """

    peer: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    no_less: float | None = None


@dataclass(frozen=True)
class Row:
    """One case: ours beside the peers.

    Attributes:
      case: what was measured, in words.
      unit: of all values: "us", "s", "MSE", "x" (times a smaller case), "% of the layer", ... (less is
        better) or "GB/s", "tokens/s", "proposals/s", "accuracy", "% of copy bandwidth" (more is better).
      ours: our median.
      peers: medians by name; None for a peer that is not there (see notes).
      quality: error columns: name to value, or name to values by contestant.
      device: in words.
      threads: of every contestant.
      versions: of the libraries.
      targets: what was aimed at.
      bound: what limits our number.
      variants: other ways to call this library, medians by name.
      spread: interquartile range over median, by contestant.
      best: fastest repetition, by contestant: what a quiet machine would give.
      first_call: seconds of the first call, with compilation, by contestant.
      notes: what a reader should know.
    """

    case: str
    unit: str
    ours: float
    peers: Mapping[str, float | None]
    quality: Mapping[str, Any]
    device: str
    threads: int
    versions: Mapping[str, str]
    targets: Sequence[Target] = ()
    bound: str = ""
    variants: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    first_call: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def ratio(self, peer: str) -> float | None:
        """How many times better ours is than a peer; below 1 the peer is better, None if it is not there."""
        return self._advantage(self.peers.get(peer))

    def hardest(self, family: str) -> str | None:
        """The best of the peers whose name starts with ``family``; None if none was measured."""
        ratios = {name: self.ratio(name) for name in self.peers if name.startswith(family)}
        known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        return min(known, key=known.__getitem__) if known else None

    @property
    def is_share(self) -> bool:
        """Whether values are parts of one, such as accuracies, of which a ratio says little."""
        return self.unit in _SHARES

    def peers_to_show(self) -> list[str]:
        """The fastest peer and those of the targets, in the row's order."""
        wanted = {
            self.hardest(""),
            *(self.hardest(target.peer) for target in self.targets if target.peer),
        }
        return [name for name in self.peers if name in wanted]

    def met(self, target: Target) -> bool | None:
        """Whether a target was reached; None where its peer was not measured."""
        if target.at_most is not None:
            return self.ours <= target.at_most
        if target.no_less is not None:
            return self.ours >= target.no_less
        peer = self.hardest(target.peer or "")
        ratio = self.ratio(peer) if peer else None
        return None if ratio is None else ratio >= (target.at_least or 1.0)

    def _advantage(self, value: float | None) -> float | None:
        if value is None or not self.ours or not value:
            return None
        return self.ours / value if self.unit in _LARGER_IS_BETTER else value / self.ours


def write_rows(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write rows as a JSON array."""
    target = Path(path)
    durable.create_folder(target.parent)
    fields = [
        {**dataclasses.asdict(row), "ratios": ratios(row), "met": [row.met(target) for target in row.targets]}
        for row in rows
    ]
    durable.replace_json(target, fields, indent=1)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The rows that `write_rows` wrote."""
    return [_row(fields) for fields in json.loads(Path(path).read_text())]


def _row(fields: dict[str, Any]) -> Row:
    own = {key: value for key, value in fields.items() if key not in ("ratios", "met")}
    targets = tuple(Target(**target) for target in own["targets"])
    return Row(**{**own, "targets": targets, "notes": tuple(own["notes"])})


def ratios(row: Row) -> dict[str, float | None]:
    """`Row.ratio` of every peer, to three digits."""
    found = {peer: row.ratio(peer) for peer in row.peers}
    return {peer: None if ratio is None else float(f"{ratio:.3g}") for peer, ratio in found.items()}


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: the fastest peer and those aimed at, and the run's surroundings.

    Slower is said as plainly as faster: "1.2x slower" means that the peer needs less time than ours.
    """
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += ["| " + " | ".join(_markdown(cell) for cell in cells) + " |" for cells in table_cells(rows)]
    return "\n".join([*lines, "", *surroundings(rows)]) + "\n"


def table_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The cells of a table with the columns of `HEAD`; a cell can have several lines.

    Example:
      >>> row = Row("sum", "us", 2.0, {"numpy": 3.0}, {}, "cpu", 1, {})
      >>> table_cells([row])
      [('sum', '2.00 us', 'numpy: 3.00 us (ours is 1.5x faster)', '', 'none')]
    """
    return [_cells(row, row.peers_to_show()) for row in rows]


def _markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", "<br>")


def show_rows(rows: Sequence[Row]) -> None:
    """Print the rows as a rich table."""
    from rich.table import Table

    from sparsejax.console import page

    table = Table(*HEAD, "bound by", show_lines=True)
    for row in rows:
        table.add_row(*_cells(row, row.peers), row.bound)
    console = page(width=180)
    console.print(table, markup=False)
    for line in surroundings(rows):
        console.print(line, markup=False, soft_wrap=True)


def update_readme(path: str | os.PathLike[str], name: str, rows: Sequence[Row]) -> None:
    """Put the rows' Markdown table between the lines ``<!-- bench:NAME:begin -->`` and ``...:end -->``.

    Raises:
      ValueError: the file does not have the two lines.
    """
    before, after = around_table(path, name)
    durable.replace_text(Path(path), f"{before}{markdown_table(rows)}{after}")


def around_table(path: str | os.PathLike[str], name: str) -> tuple[str, str]:
    """The parts of a Markdown file before and after a benchmark's table, marks included.

    Raises:
      ValueError: the file does not have the two marks.
    """
    begin, end = f"<!-- bench:{name}:begin -->\n", f"<!-- bench:{name}:end -->"
    before, found, rest = Path(path).read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no lines {begin.strip()} and {end}")
    return before + begin, end + after


def _cells(row: Row, peer_names: Iterable[str]) -> tuple[str, str, str, str, str]:
    variants = (f"{name}: {_value(value, row.unit)}" for name, value in row.variants.items())
    ours = "\n".join([_value(row.ours, row.unit), *variants])
    peers = "\n".join(f"{name}: {_peer(row, name)}" for name in peer_names)
    return row.case, ours, peers, _quality(row), _targets(row)


def _peer(row: Row, name: str) -> str:
    value, ratio = row.peers[name], row.ratio(name)
    if value is None or ratio is None:
        return "not measured"
    if row.unit in _SHARES:
        points = 100 * (row.ours - value)
        words = f"ours is {abs(points):.1f} points {'higher' if points >= 0 else 'lower'}"
    else:
        words = _words(ratio, row.unit)
    return f"{_value(value, row.unit)} ({words})"


def _words(ratio: float, unit: str) -> str:
    """Ours against a peer, from ours' side."""
    better, worse, same = (
        ("lower", "higher", "as low") if unit in (*_ERRORS, *_RELATIVE) else ("faster", "slower", "as fast")
    )
    if 0.97 < ratio < 1.03:
        return f"ours is {same}"
    return f"ours is {ratio:.1f}x {better}" if ratio > 1 else f"ours is {1 / ratio:.1f}x {worse}"


def _targets(row: Row) -> str:
    return "\n".join(_target(row, target) for target in row.targets) or "none"


def _target(row: Row, target: Target) -> str:
    verdict = {True: "met", False: "NOT met", None: "not measured"}[row.met(target)]
    if target.at_most is not None:
        return f"at most {_value(target.at_most, row.unit)}: {verdict}"
    if target.no_less is not None:
        return f"at least {_value(target.no_less, row.unit)}: {verdict}"
    peer = row.hardest(target.peer or "")
    reached = row.ratio(peer) if peer else None
    got = f" ({reached:.2f}x)" if reached is not None else ""
    return f"at least {target.at_least:g}x {peer or target.peer}: {verdict}{got}"


def _quality(row: Row) -> str:
    lines = []
    for name, value in row.quality.items():
        if isinstance(value, Mapping) and value.get("ours") is None:
            lines.append(f"{name}: " + ", ".join(f"{key} {own:.2g}" for key, own in value.items()))
        elif isinstance(value, Mapping):
            lines.append(f"{name}: {value['ours']:.1e}{_others(row, value)}")
        else:
            lines.append(f"{name}: {value:.2g}" if isinstance(value, float) else f"{name}: {value}")
    return "\n".join(lines)


def _others(row: Row, errors: Mapping[str, float | None]) -> str:
    """The largest error of a peer, or of what else was compared with; never one of our own variants."""
    known = {name: error for name, error in errors.items() if error is not None and name != "ours"}
    if peers := [known[name] for name in row.peers if name in known]:
        return f" (worst peer {max(peers):.1e})"
    told = ", ".join(f"{name} {error:.1e}" for name, error in known.items() if not name.startswith("ours: "))
    return f" ({told})" if told else ""


def _value(value: float, unit: str) -> str:
    if unit in (*_ERRORS, *_SHARES):
        return f"{value:.3g} {unit}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def surroundings(rows: Sequence[Row]) -> list[str]:
    """Lines below a table: devices, threads and versions, then what a reader should know.

    Example:
      >>> surroundings([Row("sum", "us", 2.0, {}, {}, "cpu", 1, {"jax": "0.10.1"}, notes=("Warm cache.",))])
      ['cpu; 1 thread for every contestant; jax 0.10.1.', 'Warm cache.']
    """
    lines = []
    for setting in dict.fromkeys(
        (row.device, row.threads, tuple(sorted(row.versions.items()))) for row in rows
    ):
        device, threads, versions = setting
        what = ", ".join(f"{name} {version}" for name, version in versions)
        lines.append(f"{device}; {threads} thread{'s' * (threads > 1)} for every contestant; {what}.")
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    return [*lines, *notes]
