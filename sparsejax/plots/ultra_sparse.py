"""Pictures of sine nets and of training runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.plots.style import single, with_grid, write_figures
from sparsejax.training.errors import RunError
from sparsejax.training.logs import LOG_FILE, read_log
from sparsejax.training.run_folder import read_run

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


def convergence(log: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> Figure:
    """Loss over rounds, mean over seeds with its 95 % interval, on the training and validation part.

    Args:
      log: columns of a run's ``log.csv``, as `training.logs.read_log` gives them.
      run: its ``run.json``.

    Returns:
      a figure with a logarithmic loss axis.
    """
    figure, axis = single()
    low = np.nanmin(log["loss_smallest"]) if np.isfinite(log["loss_smallest"]).any() else 0.0
    for name, label in (("loss", "training, mean"), ("validation_loss", "validation, mean")):
        _band(axis, log, name, label, floor=low)
    axis.plot(log["round"], log["loss_smallest"], color="0.35", linestyle=":", label="training, best seed")
    axis.set_yscale("log")
    axis.set_ylabel("loss" if _classifies(log) else "mean squared error (in the problem's scale)")
    _finish(axis, run, "Convergence")
    return figure


def validation_accuracy(log: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> Figure:
    """Accuracy on the validation part over rounds, mean over seeds with its 95 % interval.

    Args:
      log: see `convergence`.
      run: see `convergence`.
    """
    figure, axis = single()
    _share(axis, log, "validation_accuracy")
    axis.set_ylim(0, 100)
    axis.set_ylabel("validation accuracy (%)")
    _finish(axis, run, "Accuracy")
    return figure


def temperature_and_acceptance(log: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> Figure:
    """Share of accepted proposals over rounds, below the temperature if the search has one.

    Args:
      log: see `convergence`.
      run: see `convergence`.
    """
    from matplotlib.figure import Figure

    if not (np.nan_to_num(log["temperature"]) > 0).any():
        figure, below = single()
        above = below
    else:
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.semilogy(log["round"], log["temperature"], color="tab:red", marker=_marker(log))
        above.set_ylabel("temperature (units of the loss)")
        with_grid(above)
    _share(below, log, "accepted")
    below.set_ylim(bottom=0)
    below.set_ylabel("proposals accepted (%)")
    _finish(below, run, None)
    above.set_title(_title(run, "Temperature and acceptance"), fontsize="medium")
    return figure


def saturation(log: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> Figure:
    """Share of hidden activations beyond +-0.95 over rounds, mean over seeds with its 95 % interval.

    Args:
      log: see `convergence`.
      run: see `convergence`.
    """
    figure, axis = single()
    _share(axis, log, "saturation")
    axis.set_ylim(0, 100)
    axis.set_ylabel("hidden activations with |h| > 0.95 (%)")
    _finish(axis, run, "Saturation")
    return figure


def selection_frequency(report: Mapping[str, Any], run: Mapping[str, Any], most: int = 30) -> Figure:
    """How many of the seeds read each input, true inputs marked.

    Args:
      report: a run's ``report.json``.
      run: its ``run.json``.
      most: inputs shown, the most frequent first; true ones that no seed reads come after them.

    Returns:
      a figure with one bar per input.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    true = set(report.get("true_features") or ())
    shown = list(report["selection"])[:most]
    shown += [name for name in report.get("true_features") or () if name not in shown][: max(0, most // 2)]
    share = [100 * report["selection"].get(name, 0.0) for name in shown]
    figure = Figure(figsize=(8, max(2.4, 0.21 * len(shown) + 1.3)), layout="constrained")
    axis = figure.subplots()
    colors = ["tab:green" if name in true else "0.6" for name in shown]
    axis.barh(shown, share, color=colors)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    for label, name in zip(axis.get_yticklabels(), shown, strict=True):
        label.set_color("tab:green" if name in true else "black")
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"nets that read the input (% of {len(report['seeds'])} seeds)")
    axis.set_ylabel("input")
    axis.tick_params(axis="y", labelsize="small")
    read = len(report["selection"])
    what = "Selected inputs" if read <= most else f"Selected inputs ({most} of {read} that some net reads)"
    axis.set_title(_title(run, what), fontsize="medium")
    if true:
        handles = [Patch(color="tab:green", label="true input"), Patch(color="0.6", label="other input")]
        axis.legend(
            handles=handles, frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    with_grid(axis)
    return figure


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the plots of a run from its logs into a folder.

    Args:
      folder: of ``sparsejax train ultra-sparse``; an unfinished run gets what its log tells.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the PNG files.

    Raises:
      RunError: the folder holds no run, or one without a single round.
      ModuleNotFoundError: matplotlib is missing.
    """
    run = read_run(folder)
    if run["settings"].get("family") != "ultra_sparse" or not (folder / LOG_FILE).exists():
        raise RunError(f"{folder}: holds no log of an ultra-sparse run")
    log = read_log(folder / LOG_FILE)
    if not len(log["round"]):
        raise RunError(f"{folder}: no round is logged yet")
    figures = {
        "convergence": convergence(log, run),
        "temperature_and_acceptance": temperature_and_acceptance(log, run),
        "saturation": saturation(log, run),
    }
    if _classifies(log):
        figures["validation_accuracy"] = validation_accuracy(log, run)
    report = folder / "report.json"
    if report.exists():
        figures["selection_frequency"] = selection_frequency(json.loads(report.read_bytes()), run)
    return write_figures(out or folder / "plots", figures)


def _band(axis: Any, log: Mapping[str, np.ndarray], name: str, label: str, *, floor: float) -> None:
    """A mean over seeds with its interval, cut off at a floor: a logarithmic axis has no room below 0."""
    low, high = np.maximum(log[f"{name}_low"], floor), log[f"{name}_high"]
    _with_interval(axis, log, (log[name], low, high), label)


def _share(axis: Any, log: Mapping[str, np.ndarray], name: str) -> None:
    """A mean share in percent with its interval, cut off where no share can be."""
    mean, low, high = (np.clip(100 * log[f"{name}{end}"], 0, 100) for end in ("", "_low", "_high"))
    _with_interval(axis, log, (mean, low, high), "mean")


def _with_interval(
    axis: Any, log: Mapping[str, np.ndarray], values: tuple[np.ndarray, np.ndarray, np.ndarray], label: str
) -> None:
    mean, low, high = values
    (line,) = axis.plot(log["round"], mean, label=label, marker=_marker(log), markersize=4)
    if np.isfinite(low).any():
        axis.fill_between(log["round"], low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def _finish(axis: Any, run: Mapping[str, Any], title: str | None) -> None:
    seeds = run["settings"]["seeds"]
    axis.set_xlabel(f"round ({run['proposals_per_round']:,} proposals per seed each)")
    if title is not None:
        axis.set_title(_title(run, title), fontsize="medium")
    band = f"band: 95 % interval of the mean over {seeds} seeds" if seeds > 1 else "1 seed"
    axis.legend(fontsize="small", frameon=False, title=band, title_fontsize="small", alignment="left")
    axis.xaxis.get_major_locator().set_params(integer=True)
    with_grid(axis)


def _title(run: Mapping[str, Any], what: str) -> str:
    return f"{what}: {run['settings']['problem']}, {run['settings']['trainer']}"


def _marker(log: Mapping[str, np.ndarray]) -> str | None:
    return "o" if len(log["round"]) < 3 else None


def _classifies(log: Mapping[str, np.ndarray]) -> bool:
    return "validation_accuracy" in log
