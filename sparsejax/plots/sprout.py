"""Pictures of a training run of sparse FFNs: how loss, accuracy and sparsity went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax.checkpoint.source_file import is_native
from sparsejax.plots.noisy_curve import noisy_curve
from sparsejax.plots.style import column, titled, with_grid, write_figures
from sparsejax.training.errors import RunError
from sparsejax.training.metric_log import METRICS_FILE, read_metrics
from sparsejax.training.run_folder import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = {
    "loss": "cross-entropy\n(nats per masked token)",
    "accuracy": "accuracy at\nmasked tokens",
    "router_loss": "router loss",
    "top_k": "neurons per token",
}


def training_curves(metrics: Sequence[Mapping[str, Any]], name: str = "") -> Figure:
    """Loss, accuracy, the router's own loss and neurons per token over optimiser steps.

    Args:
      metrics: lines of a run's ``metrics.jsonl``, as `training.metric_log.read_metrics` gives them.
      name: of the run.

    Returns:
      a figure with a panel for each that was logged; thick lines are means over a fiftieth of the steps. The
      cross-entropy is without what routers add to the loss.
    """
    from matplotlib.figure import Figure

    steps_told = [
        {**row, "loss": row.get("mlm_loss", row["loss"])} for row in metrics if row.get("loss") is not None
    ]
    shown = {entry: label for entry, label in _CURVES.items() if len(column(steps_told, entry)[0])}
    figure = Figure(figsize=(8, 2.5 * len(shown) + 0.7), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (entry, label) in zip(axes, shown.items(), strict=True):
        noisy_curve(axis, *column(steps_told, entry), smooth=entry != "top_k")
        validated, scores = column(metrics, f"validation_{entry}")
        if len(validated):
            axis.plot(validated, scores, "o-", color="tab:orange", markersize=4, label="validation")
        axis.set_ylabel(label)
        if entry in ("accuracy", "top_k"):
            axis.set_ylim(bottom=0)
        if entry != "top_k":
            axis.legend(fontsize="small", frameon=False)
        with_grid(axis)
    axes[-1].set_xlabel("optimiser step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(titled("Training", name), fontsize="medium")
    return figure


def draw_folder(folder: Path) -> tuple[Path, ...]:
    """Draw the curves of a training run, or look at a checkpoint, into ``plots`` within the folder.

    Args:
      folder: of ``sparsejax train sprout``, or a sparsejax directory, whose network is looked at on random
        tokens; see `plots.sprout_report` for a text.

    Returns:
      the files.

    Raises:
      RunError: the folder holds no such run or network, or a run without a single step.
      CheckpointError: a network is damaged.
      ModuleNotFoundError: matplotlib is missing.
    """
    if is_native(folder):
        from sparsejax.checkpoint.load import load
        from sparsejax.plots.sprout_report import draw_report

        return draw_report(load(folder, kind="sprout"), folder / "plots", name=folder.name)
    if read_run(folder)["settings"].get("family") != "sprout" or not (folder / METRICS_FILE).exists():
        raise RunError(f"{folder}: holds no metrics of a run of sprout")
    metrics = read_metrics(folder / METRICS_FILE)
    if not any(row.get("loss") is not None for row in metrics):
        raise RunError(f"{folder}: no step is logged yet")
    return write_figures(folder / "plots", {"training": training_curves(metrics, folder.name)})
