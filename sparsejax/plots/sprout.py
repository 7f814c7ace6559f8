"""Pictures of a training run of sparse FFNs: how loss, accuracy and sparsity went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax.checkpoint.source_file import is_native
from sparsejax.plots.run_curves import curve_panels, metrics_of
from sparsejax.plots.style import write_figures

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
    learned = [{**row, "loss": row.get("mlm_loss", row.get("loss"))} for row in metrics]
    return curve_panels(learned, _CURVES, name, from_zero=("accuracy", "top_k"), bare=("top_k",))


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the curves of a training run, or look at a checkpoint, into a folder.

    Args:
      folder: of ``sparsejax train sprout``, or a sparsejax directory, whose network is looked at on random
        tokens; see `plots.sprout_report` for a text.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the files.

    Raises:
      RunError: the folder holds no such run or network, or a run without a single step.
      CheckpointError: a network is damaged.
      ModuleNotFoundError: matplotlib is missing.
    """
    out = out or folder / "plots"
    if is_native(folder):
        from sparsejax.checkpoint.load import load
        from sparsejax.plots.sprout_report import draw_report

        return draw_report(load(folder, kind="sprout"), out, name=folder.name)
    metrics = metrics_of(folder, "sprout")
    return write_figures(out, {"training": training_curves(metrics, folder.name)})
