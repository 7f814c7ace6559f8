"""Pictures of sparse inference: how a small Llama learned, and what fewer neurons cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.plots.noisy_curve import noisy_curve
from sparsejax.plots.style import column, side_by_side, titled, with_grid, write_figures
from sparsejax.training.errors import RunError
from sparsejax.training.metric_log import METRICS_FILE, read_metrics
from sparsejax.training.run_folder import read_run

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
    from matplotlib.figure import Figure

    shown = {entry: label for entry, label in _CURVES.items() if len(column(metrics, entry)[0])}
    figure = Figure(figsize=(8, 2.5 * len(shown) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (entry, label) in zip(axes, shown.items(), strict=True):
        noisy_curve(axis, *column(metrics, entry))
        validated, scores = column(metrics, f"validation_{entry}")
        if len(validated):
            axis.plot(validated, scores, "o-", color="tab:orange", markersize=4, label="validation")
        axis.set_ylabel(label)
        if entry != "loss":
            axis.set_ylim(bottom=0)
        axis.legend(fontsize="small", frameon=False)
        with_grid(axis)
    axes[-1].set_xlabel("optimiser step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(titled("Training", name), fontsize="medium")
    return figure


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


def draw_folder(folder: Path) -> tuple[Path, ...]:
    """Draw the curves of a training run into ``plots`` within its folder.

    Args:
      folder: of ``sparsejax train llama``.

    Returns:
      the files.

    Raises:
      RunError: the folder holds no such run, or a run without a single step.
      ModuleNotFoundError: matplotlib is missing.
    """
    if read_run(folder)["settings"].get("family") != "sparse_inference":
        raise RunError(f"{folder}: holds no run of a Llama")
    metrics = read_metrics(folder / METRICS_FILE) if (folder / METRICS_FILE).exists() else []
    if not any(row.get("loss") is not None for row in metrics):
        raise RunError(f"{folder}: no step is logged yet")
    return write_figures(folder / "plots", {"training": training_curves(metrics, folder.name)})


def _look(way: str) -> Mapping[str, Any]:
    return _LOOKS.get(way, {"marker": "d"})
