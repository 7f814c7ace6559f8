"""Pictures of force fields: forces beside their reference, energy over time, distances, how they learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.models.force_field.error_patterns import ErrorGroup
from sparsejax.models.force_field.force_metrics import force_metrics
from sparsejax.models.force_field.structure import SYMBOLS
from sparsejax.plots.noisy_curve import noisy_curve
from sparsejax.plots.run_curves import metrics_of
from sparsejax.plots.style import (
    column,
    legend_beside,
    logarithmic,
    side_by_side,
    single,
    titled,
    with_grid,
    write_figures,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparsejax.models.force_field.radial_distribution import RadialDistribution

_DENSE = 20_000  # components from which dots would only be a blot
_MANY = 500  # forces from which narrow bins are smooth
_MOST_CURVES = 6
_CURVES = {
    "loss": "loss",
    "force_rmse": "force RMSE\n(eV/A)",
    "energy_per_atom_rmse": "energy RMSE\n(eV/atom)",
    "angular_error_mean_deg": "mean angle between\nforces (degrees)",
}


def force_parity(
    predicted: ArrayLike, reference: ArrayLike, species: ArrayLike | None = None, name: str = ""
) -> Figure:
    """Components of predicted forces over those of the reference.

    Args:
      predicted: (n, 3) eV/A.
      reference: (n, 3) eV/A.
      species: (n,) atomic numbers; a colour for each element. Many forces are drawn as a density instead.
      name: of the network or the data, for the title.

    Returns:
      a figure of one panel, attached to no window; its title tells RMSE, MAE and R squared.

    Raises:
      ValueError: shapes disagree, or there are no atoms.

    Example:
      >>> figure = force_parity([[1.0, 0, 0]], [[1.0, 0, 0.1]], [8], "toy")
      >>> figure.axes[0].get_xlabel()
      'reference (eV/A)'
    """
    from matplotlib.figure import Figure

    found, truth = np.asarray(predicted, np.float64), np.asarray(reference, np.float64)
    errors = force_metrics(found, truth)
    figure = Figure(figsize=(6.2, 5.6), layout="constrained")
    axis = figure.subplots()
    ends = _ends(found, truth)
    axis.plot(ends, ends, color="0.4", linewidth=0.8, linestyle=":", zorder=3)
    if truth.size > _DENSE:
        image = axis.hexbin(
            truth.ravel(), found.ravel(), gridsize=90, bins="log", cmap="viridis", extent=(*ends, *ends)
        )
        figure.colorbar(image, ax=axis, pad=0.01).set_label("components", fontsize="small")
    else:
        for label, mine in _elements(species, len(truth)):
            axis.plot(truth[mine].ravel(), found[mine].ravel(), ".", markersize=3.5, alpha=0.6, label=label)
        if species is not None:
            axis.legend(frameon=False, markerscale=3, fontsize="small", loc="upper left")
    axis.set(xlim=ends, ylim=ends, xlabel="reference (eV/A)", ylabel="predicted (eV/A)", aspect="equal")
    told = f"RMSE {errors['rmse']:.3g}, MAE {errors['mae']:.3g} eV/A, R² {errors['r_squared']:.4g}"
    axis.set_title(f"{titled('Force components', name)}\n{told}", fontsize="medium")
    with_grid(axis)
    return figure


def angle_distribution(angles: Mapping[str, ArrayLike], name: str = "") -> Figure:
    """How far predicted forces point away from the reference.

    Args:
      angles: degrees (n,) by the name of a network, as `angular_errors` gives them.
      name: for the title.

    Returns:
      a figure with the share of forces over the angle; dotted, what random directions would give.

    Example:
      >>> axis = angle_distribution({"tiny": [1.0, 2.0, 30.0]}).axes[0]
      >>> [text.get_text() for text in axis.get_legend().get_texts()]
      ['tiny: median 2°, 95 % below 27.2°', 'random directions']
    """
    figure, axis = single()
    fewest = min((np.size(each) for each in angles.values() if np.size(each)), default=0)
    width = 2 if fewest > _MANY else 5
    borders = np.arange(0, 180 + width, width)
    for label, degrees in angles.items():
        values = np.asarray(degrees, np.float64)
        if not values.size:
            continue
        counts, _ = np.histogram(values, borders)
        told = f"median {np.median(values):.3g}°, 95 % below {np.percentile(values, 95):.3g}°"
        axis.stairs(
            100 * counts / values.size,
            borders,
            linewidth=1.6,
            fill=len(angles) == 1,
            alpha=0.85,
            label=f"{label}: {told}" if label else told,
        )
    middles = (borders[:-1] + borders[1:]) / 2
    random = 50 * np.sin(np.radians(middles)) * np.radians(borders[1])
    axis.plot(middles, random, color="0.3", linestyle=":", linewidth=1, label="random directions")
    axis.set(xlim=(0, 180), xlabel="angle between predicted and reference force (degrees)")
    axis.set_ylim(bottom=0)
    axis.set_ylabel(f"share of forces (% per {width}°)")
    axis.set_xticks(range(0, 181, 30))
    axis.legend(frameon=False, fontsize="small")
    axis.set_title(titled("Directions of forces", name), fontsize="medium")
    with_grid(axis)
    return figure


def error_groups(
    groups: Mapping[str, Sequence[ErrorGroup]], what: str, unit: str = "", name: str = ""
) -> Figure:
    """Errors of groups of forces: their size, and what share of the forces themselves they are.

    Args:
      groups: of `errors_by_element` or `errors_by_magnitude`, by the name of a network.
      what: the groups are told apart by, such as "element".
      unit: of that, if it has one.
      name: for the title.

    Returns:
      a figure of two panels with a bar per group and network.
    """
    figure, (left, right) = side_by_side(2)
    names = list(dict.fromkeys(group.name for one in groups.values() for group in one))
    width = 0.8 / max(len(groups), 1)
    for place, (label, one) in enumerate(groups.items()):
        known = {group.name: group for group in one}
        places = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * width
        for axis, value in ((left, "rmse"), (right, "relative")):
            scale = 1 if value == "rmse" else 100
            heights = [scale * getattr(known[each], value) if each in known else np.nan for each in names]
            axis.bar(places, heights, width, label=label)
    for axis in (left, right):
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel(f"{what} ({unit})" if unit else what)
        axis.tick_params(axis="x", labelsize="small")
        with_grid(axis)
    left.set_ylabel("RMSE of forces (eV/A)")
    right.set_ylabel("RMSE over that of predicting zeros (%)")
    right.axhline(100, color="0.3", linestyle=":", linewidth=1)
    logarithmic(right)
    if len(groups) > 1:
        handles = left.get_legend_handles_labels()
        figure.legend(*handles, loc="outside right center", frameon=False, fontsize="small")
    figure.suptitle(titled(f"Errors by {what}", name), fontsize="medium")
    return figure


def energy_drift(
    time: ArrayLike, total: ArrayLike, atoms: int, temperature: ArrayLike | None = None, name: str = ""
) -> Figure:
    """The total energy of a run over time, per atom, and the straight line through it.

    Args:
      time: (f,) ps.
      total: (f,) eV, potential and kinetic.
      atoms: n.
      temperature: (f,) K, for a second panel.
      name: of the run.

    Returns:
      a figure; its legend tells the slope in eV/atom/ps: the drift, if the run is at constant energy.

    Raises:
      ValueError: fewer than 2 frames, or a time that stands still.

    Example:
      >>> axis = energy_drift([0.0, 1.0, 2.0], [5.0, 5.2, 5.4], atoms=2).axes[0]
      >>> axis.get_legend().get_texts()[0].get_text()
      'slope +1.0e-01 eV/atom/ps, a drift if the run is at constant energy'
    """
    from matplotlib.figure import Figure

    from sparsejax.models.force_field.energy_metrics import linear_drift

    times, energy = np.asarray(time, np.float64), np.asarray(total, np.float64)
    line = linear_drift(times, energy)
    slope = line["drift_rate"] / atoms
    change = 1e3 * (energy - energy[0]) / atoms
    fitted = 1e3 * (line["initial_energy"] - energy[0] + line["drift_rate"] * (times - times[0])) / atoms
    rows = 1 if temperature is None else 2
    figure = Figure(figsize=(8, 2.7 * rows + 1), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    axes[0].plot(times, change, linewidth=0.9, color="tab:blue")
    told = f"slope {slope:+.1e} eV/atom/ps, a drift if the run is at constant energy"
    axes[0].plot(times, fitted, color="tab:orange", linestyle="--", linewidth=1.4, label=told)
    axes[0].set_ylabel("total energy less that of\nthe first frame (meV/atom)")
    axes[0].ticklabel_format(axis="y", useOffset=False)
    axes[0].legend(frameon=False, fontsize="small")
    if temperature is not None:
        kelvin = np.asarray(temperature, np.float64)
        axes[1].plot(times, kelvin, linewidth=0.9, color="tab:red")
        axes[1].axhline(
            kelvin.mean(), color="0.3", linestyle=":", linewidth=1, label=f"mean {kelvin.mean():.0f} K"
        )
        axes[1].set_ylabel("temperature (K)")
        axes[1].set_ylim(bottom=0)
        axes[1].legend(frameon=False, fontsize="small")
    axes[-1].set_xlabel("time (ps)")
    for axis in axes:
        with_grid(axis)
    figure.suptitle(titled("Energy over time", name), fontsize="medium")
    return figure


def radial_distribution(found: RadialDistribution, name: str = "") -> Figure:
    """Distances between atoms, a curve for every two elements.

    Args:
      found: of `sparsejax.models.force_field.radial_distribution.radial_distribution`; of many pairs those
        with the highest peaks are drawn.
      name: of the run.
    """
    figure, axis = single()
    highest = sorted(found.curves, key=lambda pair: -found.curves[pair].max())[:_MOST_CURVES]
    for pair in (pair for pair in found.curves if pair in highest):
        axis.plot(found.distances, found.curves[pair], linewidth=1.3, label=pair)
    width = found.distances[1] - found.distances[0]
    axis.set_xlim(0, found.distances[-1] + width / 2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("distance (A)")
    if found.periodic:
        axis.axhline(1, color="0.3", linestyle=":", linewidth=1)
        axis.set_ylabel("radial distribution g(r)")
    else:
        axis.set_ylabel("density of pairs (1/A)")
    left_out = len(found.curves) - len(highest)
    what = "Distances" if not left_out else f"Distances ({left_out} more pairs of elements are left out)"
    axis.set_title(titled(what, name), fontsize="medium")
    legend_beside(axis)
    with_grid(axis)
    return figure


def learning_curve(metrics: Sequence[Mapping[str, Any]], name: str = "") -> Figure:
    """Loss and errors of held-out structures over optimiser steps.

    Args:
      metrics: lines of a run's ``metrics.jsonl``, as `training.metric_log.read_metrics` gives them.
      name: of the run.

    Returns:
      a figure with a panel for each that was logged, with logarithmic errors; the thick line of the loss is
      its mean over a fiftieth of the lines.
    """
    from matplotlib.figure import Figure

    shown = {
        entry: label
        for entry, label in _CURVES.items()
        if any(len(column(metrics, key)[0]) for key in (entry, f"validation_{entry}"))
    }
    figure = Figure(figsize=(8, 1.9 * len(shown) + 1), layout="constrained")
    axes = np.atleast_1d(figure.subplots(max(len(shown), 1), 1, sharex=True))
    for axis, (entry, label) in zip(axes, shown.items(), strict=False):
        steps, values = column(metrics, entry)
        if len(steps):
            noisy_curve(axis, steps, values, unit="lines")
        steps, values = column(metrics, f"validation_{entry}")
        if len(steps):
            axis.plot(steps, values, color="tab:orange", marker="o", markersize=3, label="held out")
        logarithmic(axis)
        axis.set_ylabel(label, fontsize="small")
        with_grid(axis)
    legend_beside(axes[0])
    axes[-1].set_xlabel("optimiser step")
    figure.suptitle(titled("Training", name), fontsize="medium")
    return figure


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the plots of a run into a folder.

    Args:
      folder: of ``sparsejax train force-field``.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the PNG files.

    Raises:
      RunError: the folder holds no such run, or one without a single step.
      ModuleNotFoundError: matplotlib is missing.
    """
    metrics = metrics_of(folder, "force_field", "force-field")
    return write_figures(out or folder / "plots", {"learning_curve": learning_curve(metrics, folder.name)})


def _elements(species: ArrayLike | None, count: int) -> list[tuple[str, np.ndarray]]:
    """Symbols and which atoms are theirs, from many atoms to few, so that rare ones are drawn on top."""
    if species is None:
        return [("", np.ones(count, bool))]
    numbers = np.asarray(species)
    found, counts = np.unique(numbers, return_counts=True)
    return [(SYMBOLS[found[place]], numbers == found[place]) for place in np.argsort(-counts, kind="stable")]


def _ends(*arrays: np.ndarray) -> tuple[float, float]:
    """Limits that hold all values with a small margin."""
    low, high = min(array.min() for array in arrays), max(array.max() for array in arrays)
    margin = 0.04 * max(high - low, 1e-6)
    return float(low - margin), float(high + margin)
