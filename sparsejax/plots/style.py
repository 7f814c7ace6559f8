"""How all pictures look: sizes, colours, legends, and where they are written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.checkpoint.native import durable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def single() -> tuple[Figure, Any]:
    """A figure of one panel, attached to no window, and its axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    return figure, figure.subplots()


def side_by_side(count: int) -> tuple[Figure, Any]:
    """A figure of panels in a row, and their axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.9 * count, 4.1), layout="constrained")
    return figure, figure.subplots(1, count)


def shades(count: int) -> np.ndarray:
    """Colours (count, 4) from dark to light, for things that have an order."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.05, 0.9, max(count, 1)))


def titled(what: str, name: str) -> str:
    """A title: what is shown, and of which network.

    Example:
      >>> titled("Loss", "run"), titled("Loss", "")
      ('Loss: run', 'Loss')
    """
    return f"{what}: {name}" if name else what


def legend_beside(axis: Any) -> None:
    """Put the legend to the right of the panel."""
    axis.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def with_grid(axis: Any) -> None:
    """Draw a faint grid behind the data, and a frame at the left and below only."""
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    plain(axis)


def logarithmic(axis: Any, *names: str) -> None:
    """Logarithmic axes with plain numbers, some of them even where they span less than a power of ten.

    Args:
      axis: panel.
      names: "x", "y" or both; "y" if none is given.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    for name in names or ("y",):
        axis.set(**{f"{name}scale": "log"})
        one = getattr(axis, f"{name}axis")
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter("{x:g}")
        one.set_minor_locator(NullLocator())


def plain(axis: Any) -> None:
    """Draw a frame at the left and below only."""
    axis.spines[["top", "right"]].set_visible(False)


def column(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and values (n,) of one entry of a log, where it is told.

    Args:
      metrics: lines of a run's ``metrics.jsonl``.
      name: of the entry.

    Example:
      >>> [part.tolist() for part in column([{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}], "loss")]
      [[1.0], [0.5]]
    """
    rows = [(row["step"], row[name]) for row in metrics if row.get(name) is not None]
    table = np.array(rows, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> tuple[Path, ...]:
    """Write figures as PNG files into a folder, made if needed; an old file stays until the new one is whole.

    Returns:
      the files.

    Raises:
      OSError: one cannot be written.
    """
    durable.create_folder(folder)
    for name, figure in figures.items():
        picture = io.BytesIO()
        figure.savefig(picture, dpi=150, format="png")
        durable.replace_bytes(folder / f"{name}.png", picture.getvalue())
    return tuple(folder / f"{name}.png" for name in figures)
