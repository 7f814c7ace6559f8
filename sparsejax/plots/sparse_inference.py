"""Pictures of sparse inference: how a small Llama learned, and what fewer neurons cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.plots.run_curves import curve_panels, metrics_of
from sparsejax.plots.style import side_by_side, with_grid, write_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = {
    "loss": "cross-entropy\n(nats per token)",
    "effective_share": "effective share\nof the neurons",
    "active_share": "neurons with\nan open gate",
}
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "oracle": {"color": "tab:green", "marker": "s", "linestyle": "--"},
    "predictor": {"color": "tab:blue", "marker": "o", "linestyle": "-"},
    "random": {"color": "0.55", "marker": "^", "linestyle": ":"},
}
_TICKS = (0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 1.0)
_HIGHEST = 4.0  # times the perplexity of all neurons; above, nothing is left of the network


def training_curves(metrics: Sequence[Mapping[str, Any]], name: str = "") -> Figure:
    """Loss and shares of the neurons over optimiser steps.

    Args:
      metrics: lines of a run's ``metrics.jsonl``, as `training.metric_log.read_metrics` gives them.
      name: of the run.

    Returns:
      a figure with a panel for each that was logged; thick lines are means over a fiftieth of the steps.
    """
    return curve_panels(metrics, _CURVES, name, from_zero=("effective_share", "active_share"))


def perplexity_curves(curves: Mapping[str, Mapping[str, Mapping[float, float]]]) -> Figure:
    """Perplexity against the share of the neurons that each token computes.

    Args:
      curves: by network, by how neurons are chosen ("predictor", "oracle", "random"): perplexity by active
        fraction; 1.0 must be among the fractions.

    Returns:
      a figure with a panel per network, as high as the curves that are not of random choices.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, axes = side_by_side(max(1, len(curves)))
    for axis, (name, ways) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        dense = max(table[1.0] for table in ways.values())
        for way, table in ways.items():
            fractions = sorted(table)
            axis.plot(fractions, [table[part] for part in fractions], label=way, markersize=5, **_look(way))
        axis.axhspan(0, 1.03 * dense, color="tab:green", alpha=0.08)
        # A choice at random would leave the others no room.
        shown = [value for way, table in ways.items() if way != "random" for value in table.values()]
        highest = max(1.15 * dense, *(1.05 * value for value in shown))
        axis.set_ylim(0.98 * min(dense, *shown), min(highest, _HIGHEST * dense))
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(_TICKS))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
        axis.set_xlabel("neurons that a token computes (%)")
        axis.set_ylabel("perplexity of held-out text")
        axis.set_title(f"{name}: {dense:.2f} with all; shaded: at most 3 % above", fontsize="medium")
        axis.legend(fontsize="small", frameon=False)
        with_grid(axis)
    return figure


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the curves of a training run into a folder.

    Args:
      folder: of ``sparsejax train llama``.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the files.

    Raises:
      RunError: the folder holds no such run, or a run without a single step.
      ModuleNotFoundError: matplotlib is missing.
    """
    metrics = metrics_of(folder, "sparse_inference", "llama")
    return write_figures(out or folder / "plots", {"training": training_curves(metrics, folder.name)})


def _look(way: str) -> Mapping[str, Any]:
    return _LOOKS.get(way, {"marker": "d"})
