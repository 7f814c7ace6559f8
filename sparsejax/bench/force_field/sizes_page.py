"""The report on force fields as a page with its pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax.bench.force_field.errors import Errors
from sparsejax.checkpoint.native import durable
from sparsejax.plots.page import html_page, html_picture, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FAR = ("30 to 60", "60 to 90", "90 to 180")
_TITLES = {
    "speed": "Speed by batch",
    "angle_distribution": "Directions of forces",
    "errors_by_element": "Errors by element",
    "errors_by_magnitude": "Errors by length of the force",
}


def pictures(times: Mapping[str, Mapping[int, float]], errors: Sequence[Errors]) -> dict[str, Figure]:
    """All pictures of a report by file name.

    Args:
      times: milliseconds by network and batch.
      errors: of each network that is compared with the reference.

    Raises:
      ModuleNotFoundError: matplotlib is missing.
    """
    from sparsejax.plots import force_field as figures
    from sparsejax.plots.force_field_speed import speed_by_batch

    drawn = {"speed": speed_by_batch(times)}
    if not errors:
        return drawn
    drawn["angle_distribution"] = figures.angle_distribution({one.network: one.directions for one in errors})
    drawn["errors_by_element"] = figures.error_groups(
        {one.network: one.elements for one in errors}, "element"
    )
    drawn["errors_by_magnitude"] = figures.error_groups(
        {one.network: one.magnitudes for one in errors}, "length of the reference force", "eV/A"
    )
    for one in errors:
        stem = one.network.lower().replace("-", "_").replace(" ", "_")
        drawn[f"force_parity_{stem}"] = figures.force_parity(*one.compared[:3], one.network)
    return drawn


def write_page(path: Path, document: Mapping[str, Any], drawn: Sequence[Path]) -> Path:
    """Write the report as one HTML file, pictures included.

    Args:
      path: of the file.
      document: what ``report.json`` holds.
      drawn: PNG files.

    Returns:
      the path.
    """
    body = [
        _paragraph(introduction(document)),
        "<h2>Networks and files</h2>",
        _networks(document["networks"]),
        "<h2>Energy and forces</h2>",
        _speed(document["speed"]),
        "<h2>Errors</h2>",
        _errors(document["errors"]),
        *(_paragraph(line) for line in findings(document)),
        *(html_picture(file, _title(file.stem)) for file in drawn),
    ]
    durable.replace_text(path, html_page("Force fields side by side", "\n".join(body)))
    return path


def introduction(document: Mapping[str, Any]) -> str:
    """What was compared with what, on which machine."""
    random = [one["network"] for one in document["networks"] if not one["trained"]]
    told = f"{document['structures']:,} structures; reference: {document['reference']}. "
    told += f"Times: float32, {document['threads']} threads, {document['device']}."
    if random:
        told += (
            f" {', '.join(random)}: random weights. Their speed is that of trained ones; their errors mean "
            "nothing."
        )
    return told


def findings(document: Mapping[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two per network.

    Args:
      document: what ``report.json`` holds.
    """
    lines = []
    for one in document["errors"]:
        known = [group for group in one["elements"] if group["relative"] is not None]
        far = sum(one["angle_shares"].get(name, 0.0) for name in _FAR)
        line = (
            f"{one['network']}: force RMSE {one['forces']['rmse']:.3g} eV/A, energy MAE "
            f"{1e3 * one['energy']['per_atom_mae']:.3g} meV/atom; {far:.0%} of the forces point more than 30 "
            "degrees away."
        )
        if known:
            worst = max(known, key=lambda group: group["relative"])
            line += (
                f" Relative to the forces it is worst at {worst['name']}: {worst['relative']:.0%} of what "
                "predicting zeros costs."
            )
        if one["without_graph_ids"] is not None:
            mixed = one["without_graph_ids"]
            line += (
                f" If the molecules of a batch are taken for one structure, as the published validation took "
                f"them, the same network seems off by {mixed['energy_mae']:,.3g} eV and "
                f"{mixed['force_rmse']:,.3g} eV/A: that is the way of measuring, not the network."
            )
        spread = one["energy_spread_over_rotations"]
        line += (
            f" Turning the first structure changes its energy by {spread:.2g} eV (standard deviation over "
            "the rotations of a cube)."
        )
        lines.append(line)
    return lines


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _title(stem: str) -> str:
    return _TITLES.get(stem, stem.replace("_", " ").capitalize())


def _networks(networks: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "network",
        "weights",
        "variant",
        "parameters",
        ".pt (MB)",
        "StableHLO (MB)",
        "program's error (eV, eV/A)",
    )
    rows = []
    for one in networks:
        known = one["stablehlo"] is not None
        errors = (
            f"{one['stablehlo_energy_error']:.1e}, {one['stablehlo_force_error']:.1e}" if known else "none"
        )
        weights = "trained" if one["trained"] else "random"
        size = f"{one['stablehlo_mb']:.2f}" if known else "not written"
        rows.append(
            (one["network"], weights, one["variant"], f"{one['parameters']:,}", f"{one['pt_mb']:.2f}", size)
            + (errors,)
        )
    return html_table(head, rows)


def _speed(speed: Sequence[Mapping[str, Any]]) -> str:
    head = ("network", "molecules", "atoms", "median (ms)", "best (ms)", "molecules/s", "atoms/s")
    rows = [
        (
            row["network"],
            row["batch"],
            row["atoms"],
            f"{row['ms']:.3g}",
            f"{row['best_ms']:.3g}",
            f"{1e3 * row['batch'] / row['ms']:,.0f}",
            f"{1e3 * row['atoms'] / row['ms']:,.0f}",
        )
        for row in speed
    ]
    return html_table(head, rows)


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return "<p>There is nothing to compare.</p>"
    head = (
        "network",
        "force RMSE",
        "force MAE",
        "R²",
        "median angle (°)",
        "energy MAE (eV)",
        "energy MAE (meV/atom)",
        "worst structures",
    )
    rows = [
        (
            one["network"],
            f"{one['forces']['rmse']:.3g}",
            f"{one['forces']['mae']:.3g}",
            _told(one["forces"]["r_squared"]),
            _told(one["forces"]["angular_error_median"]),
            f"{one['energy']['mae']:.3g}",
            f"{1e3 * one['energy']['per_atom_mae']:.3g}",
            ", ".join(f"{bad['formula']} #{bad['structure']}" for bad in one["worst"][:3]),
        )
        for one in errors
    ]
    return html_table(head, rows)


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
