"""Pictures of sine nets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def target_and_prediction(curves: dict[str, tuple[Any, Any]]) -> Figure:
    """Target sin(x) with the predictions of one or more nets, and their errors on a log axis below.

    Args:
      curves: by name, x (n,) in radians and y (n,).

    Returns:
      a matplotlib figure that is attached to no window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    grid = np.linspace(-2 * np.pi, 2 * np.pi, 400)
    above.plot(grid, np.sin(grid), color="0.75", linewidth=6, label="sin(x), the target")
    for name, points in curves.items():
        x, y = np.asarray(points)[:, np.argsort(np.asarray(points[0]))]
        (line,) = above.plot(x, y, linewidth=1.4, label=name)
        below.semilogy(x, np.maximum(np.abs(y - np.sin(x)), 1e-9), linewidth=1, color=line.get_color())
    above.set_ylabel("y")
    above.legend(fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    below.set_ylabel("|error|")
    below.set_xlabel("x (radians)")
    for axis in (above, below):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
