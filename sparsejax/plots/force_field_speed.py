"""Pictures of how fast force fields are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparsejax.plots.style import logarithmic, side_by_side, with_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def speed_by_batch(milliseconds: Mapping[str, Mapping[int, float]]) -> Figure:
    """Time of a call and structures per second over the structures in a call.

    Args:
      milliseconds: by the name of a network and the number of structures.

    Returns:
      a figure of two panels with logarithmic axes.

    Example:
      >>> left, right = speed_by_batch({"tiny": {1: 2.0, 4: 4.0}}).axes
      >>> right.lines[0].get_ydata().tolist()
      [500.0, 1000.0]
    """
    figure, (left, right) = side_by_side(2)
    batches = sorted({batch for times in milliseconds.values() for batch in times})
    for name, times in milliseconds.items():
        known = sorted(times)
        left.plot(known, [times[batch] for batch in known], marker="o", markersize=4, label=name)
        right.plot(known, [1e3 * batch / times[batch] for batch in known], marker="o", markersize=4)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        logarithmic(axis)
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.set_xlabel("molecules in a call")
        with_grid(axis)
    left.set_ylabel("energy and forces (ms)")
    right.set_ylabel("molecules per second")
    left.legend(frameon=False, fontsize="small")
    return figure
