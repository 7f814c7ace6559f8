"""The metrics of a training run, read and drawn: what all runs that log optimiser steps share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax.plots.noisy_curve import noisy_curve
from sparsejax.plots.style import column, titled, with_grid
from sparsejax.training.errors import RunError
from sparsejax.training.metric_log import METRICS_FILE, read_metrics
from sparsejax.training.run_folder import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def metrics_of(folder: Path, family: str, command: str | None = None) -> list[dict[str, Any]]:
    """Lines of the ``metrics.jsonl`` of a run, in order.

    Args:
      folder: of the run.
      family: that it must be of, as ``run.json`` names it.
      command: what ``sparsejax train`` calls the family, for errors; its own name if not given.

    Raises:
      RunError: the folder holds no run of the family, or one without a single step.
    """
    if read_run(folder)["settings"].get("family") != family or not (folder / METRICS_FILE).exists():
        raise RunError(f"{folder}: holds no metrics of a run of {command or family}")
    metrics = read_metrics(folder / METRICS_FILE)
    if not any(row.get("loss") is not None for row in metrics):
        raise RunError(f"{folder}: no step is logged yet")
    return metrics


def curve_panels(
    metrics: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    name: str,
    *,
    from_zero: Collection[str] = (),
    bare: Collection[str] = (),
) -> Figure:
    """A panel for each entry that was logged, training and validation, over optimiser steps.

    Args:
      metrics: lines of a run's ``metrics.jsonl``, as `metrics_of` gives them.
      labels: of the vertical axes, by entry, from above.
      name: of the run.
      from_zero: entries whose panel begins at 0.
      bare: entries without noise: one line, no mean and no legend.

    Returns:
      the figure; thick lines are means over a fiftieth of the steps.
    """
    from matplotlib.figure import Figure

    shown = {entry: label for entry, label in labels.items() if len(column(metrics, entry)[0])}
    figure = Figure(figsize=(8, 2.5 * len(shown) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (entry, label) in zip(axes, shown.items(), strict=True):
        noisy_curve(axis, *column(metrics, entry), smooth=entry not in bare)
        validated, scores = column(metrics, f"validation_{entry}")
        if len(validated):
            axis.plot(validated, scores, "o-", color="tab:orange", markersize=4, label="validation")
        axis.set_ylabel(label)
        if entry in from_zero:
            axis.set_ylim(bottom=0)
        if entry not in bare:
            axis.legend(fontsize="small", frameon=False)
        with_grid(axis)
    axes[-1].set_xlabel("optimiser step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(titled("Training", name), fontsize="medium")
    return figure
