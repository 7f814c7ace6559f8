"""Pictures of a benchmark's rows: ours beside the peers, over sizes, and errors beside speeds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsejax.plots.style import logarithmic, with_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparsejax.bench.report import Row
    from sparsejax.bench.series import Series

_OURS, _PEER, _MARK = "#2166ac", "#d6604d", "#222222"
_COLUMNS = 3
_COLORS, _MARKERS = 10, "os^D"  # of matplotlib's cycle, then the next marker
_SPEEDS = ("ns", "us", "ms", "s", "GB/s", "proposals/s", "% of copy bandwidth")


class _Bar(NamedTuple):
    case: str
    peer: str
    ratio: float
    target: float | None


def ratio_bars(rows: Sequence[Row]) -> Figure | None:
    """How many times better ours is than the fastest peer of every row, and than those of its targets.

    Args:
      rows: of one benchmark.

    Returns:
      a figure with a logarithmic axis, targets marked; None if no row has a peer to divide by.

    Example:
      >>> from sparsejax.bench.records import recorded
      >>> ratio_bars(recorded("force_field")).axes[0].get_xscale()
      'log'
    """
    from matplotlib.figure import Figure

    bars = [bar for row in rows for bar in _bars(row)]
    if not bars:
        return None
    figure = Figure(figsize=(12, 1.2 + 0.36 * len(bars)), layout="constrained")
    axis = figure.subplots()
    heights = range(len(bars))
    colors = [_OURS if bar.ratio >= 1 else _PEER for bar in bars]
    axis.barh(heights, [bar.ratio - 1 for bar in bars], left=1, height=0.6, color=colors)
    for height, bar in enumerate(bars):
        words = f" {bar.ratio:.3g}x  {bar.peer}"
        axis.annotate(
            words,
            (max(1, bar.ratio, bar.target or 0), height),
            fontsize=7.5,
            va="center",
            xytext=(4, 0),
            textcoords="offset points",
        )
        if bar.target is not None:
            axis.plot([bar.target, bar.target], [height - 0.42, height + 0.42], color=_MARK, linewidth=2)
    logarithmic(axis, "x")
    axis.axvline(1, color=_MARK, linewidth=0.8)
    axis.set_yticks(heights, _told_once([textwrap.fill(bar.case, 62) for bar in bars]), fontsize=7.5)
    axis.invert_yaxis()
    axis.set_ylim(len(bars) - 0.4, -0.6)
    values = [value for bar in bars for value in (bar.ratio, bar.target) if value is not None]
    axis.set_xlim(min(0.8, 0.8 * min(values)), 8 * max(1.5, *values))
    axis.set_xlabel("times better than the peer; left of 1 the peer is better; black: what was aimed at")
    with_grid(axis)
    return figure


def scaling_curves(series: Sequence[Series]) -> Figure | None:
    """Values over sizes, ours and the peers'; curves without peers of one size and unit share a panel.

    Args:
      series: from `sparsejax.bench.series.series_of`.

    Returns:
      a figure of panels; None without curves.

    Example:
      >>> from sparsejax.bench.records import recorded
      >>> from sparsejax.bench.series import series_of
      >>> scaling_curves(series_of(recorded("force_field"))).axes[0].get_xlabel()
      'molecules'
    """
    from matplotlib.figure import Figure

    panels = _panels(series)
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 5.0 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, curves in zip(axes, panels, strict=False):
        _draw_panel(axis, curves)
    for axis in axes[len(panels) :]:
        axis.remove()
    return figure


def error_beside_speed(rows: Sequence[Row]) -> Figure | None:
    """Every peer beside ours: how much slower it is, and how much larger its error.

    Args:
      rows: of one benchmark; those that measure a speed, and an error of every contestant, are drawn.

    Returns:
      a figure with logarithmic axes, ours at (1, 1); None if there is no such row.

    Example:
      >>> from sparsejax.bench.records import recorded
      >>> axis = error_beside_speed(recorded("ultra_sparse")).axes[0]
      >>> axis.get_xscale(), axis.get_yscale()
      ('log', 'log')
    """
    points = [point for row in rows if row.unit in _SPEEDS for point in _errors(row)]
    if not points:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axis = figure.subplots()
    for number, peer in enumerate(dict.fromkeys(name for name, _, _ in points)):
        slower = [times for name, times, _ in points if name == peer]
        larger = [times for name, _, times in points if name == peer]
        marker = _MARKERS[number // _COLORS % len(_MARKERS)]
        axis.scatter(slower, larger, s=26, alpha=0.75, marker=marker, label=textwrap.fill(peer, 34))
    axis.plot(1, 1, marker="*", markersize=14, color=_MARK, linestyle="", label="ours")
    logarithmic(axis, "x", "y")
    axis.axvline(1, color=_MARK, linewidth=0.8)
    axis.axhline(1, color=_MARK, linewidth=0.8)
    axis.set_xlabel("times slower than ours (left of 1: faster)")
    axis.set_ylabel("times the error of ours (below 1: more exact)")
    with_grid(axis)
    axis.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _bars(row: Row) -> list[_Bar]:
    if row.is_share:
        return []
    aims = {row.hardest(target.peer): target.at_least for target in row.targets if target.peer}
    named = [(peer, row.ratio(peer)) for peer in row.peers_to_show()]
    return [_Bar(row.case, peer, ratio, aims.get(peer)) for peer, ratio in named if ratio is not None]


def _told_once(labels: Sequence[str]) -> list[str]:
    """Each label where it comes first in a run of equal ones."""
    before = ["", *labels[:-1]]
    return [label if label != last else "" for label, last in zip(labels, before, strict=True)]


def _panels(series: Sequence[Series]) -> list[list[Series]]:
    found: dict[Any, list[Series]] = {}
    for number, curve in enumerate(series):
        key = number if len(curve.lines) > 1 else (curve.size, curve.unit)
        found.setdefault(key, []).append(curve)
    return list(found.values())


def _draw_panel(axis: Any, curves: Sequence[Series]) -> None:
    """One series with its peers, or several without."""
    first = curves[0]
    alone = len(curves) == 1
    for curve in curves:
        for name, points in curve.lines.items():
            ours = name == "ours" and alone
            label = textwrap.fill(name if alone else curve.case, 46)
            look = {"color": _MARK, "linewidth": 2.4, "zorder": 3} if ours else {"linewidth": 1.2}
            axis.plot(list(points), list(points.values()), marker="o", markersize=4, label=label, **look)
    sizes = sorted({size for curve in curves for points in curve.lines.values() for size in points})
    values = [value for curve in curves for points in curve.lines.values() for value in points.values()]
    axis.set_xscale("log")
    if min(values) > 0 and max(values) > 20 * min(values):
        logarithmic(axis, "y")
    axis.minorticks_off()
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axis.set_xlabel(first.size)
    axis.set_ylabel(first.unit)
    if alone:
        axis.set_title(textwrap.fill(first.case, 52), fontsize=9)
    with_grid(axis)
    if len(axis.lines) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2 if alone else 1}
        axis.legend(fontsize=7, frameon=False, **below)


def _errors(row: Row) -> list[tuple[str, float, float]]:
    """Peers of a row: name, times slower than ours, times the error of ours."""
    tables = [value for value in row.quality.values() if isinstance(value, dict) and value.get("ours")]
    if not tables:
        return []
    ours = tables[0]["ours"]
    return [
        (peer, ratio, error / ours)
        for peer, error in tables[0].items()
        if error and (ratio := row.ratio(peer)) is not None
    ]
