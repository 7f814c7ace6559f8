"""What ``sparsejax plot`` is asked for, and which room of the plots answers it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparsejax.training.errors import RunError

REPORTS = ("sprout", "force-field")
"""Families with reports on checkpoints."""


class PlotRequest(NamedTuple):
    """Arguments of ``sparsejax plot``.

    Attributes:
      target: folder of a run, sparsejax directory, or one of `REPORTS`.
      checkpoint: file or directory of the network, for a report.
      data: to look at it with: texts, or labelled structures.
      trajectory: of a force field's atoms.
      out: folder for what is drawn; None is one named after the family of a report, or within a run's.
      tokenizer: of the texts.
      top_k: neurons per token.
      tokens: to read at most; None is as many as a report reads unless told.
      overrides: config values that the checkpoint does not tell.
    """

    target: Path
    checkpoint: Path | None = None
    data: Path | None = None
    trajectory: Path | None = None
    out: Path | None = None
    tokenizer: Path | None = None
    top_k: int | None = None
    tokens: int | None = None
    overrides: Mapping[str, Any] | None = None


def draw(request: PlotRequest) -> tuple[Path, ...]:
    """Draw what is asked for.

    Returns:
      the files.

    Raises:
      RunError: the request makes no sense, or there is nothing to draw; one line.
      CheckpointError: the checkpoint cannot be read.
      DatasetError: the data cannot be read.
      ModuleNotFoundError: matplotlib, or what reads the data, is missing.
    """
    family, asked = str(request.target), request.checkpoint or request.trajectory
    if request.checkpoint is None and request.data is not None:
        told = f"sparsejax plot {'|'.join(REPORTS)} --checkpoint FILE --data FILE"
        raise RunError(f"--data goes with --checkpoint: {told}")
    if family == "force-field" and (asked or not request.target.exists()):
        _refuse(request, "tokenizer", "top_k", "tokens", goes="plot sprout --checkpoint FILE")
        return _force_field(request)
    if request.trajectory is not None:
        raise RunError(f"there are no trajectories of {family}; give force-field")
    if request.checkpoint is None and family == "sprout" and not request.target.exists():
        raise RunError("plot sprout needs --checkpoint FILE")
    if request.checkpoint is not None:
        if family != "sprout":
            raise RunError(f"there are no reports on checkpoints of {family}; give {' or '.join(REPORTS)}")
        return _sprout(request, request.checkpoint)
    from sparsejax.plots.folder import draw_folder

    _refuse(request, "tokenizer", "top_k", "tokens", "overrides", goes="--checkpoint FILE")
    return draw_folder(request.target, request.out)


def _refuse(request: PlotRequest, *names: str, goes: str) -> None:
    """Refuse options that what is drawn has no use for."""
    for name in names:
        if getattr(request, name) not in (None, {}):
            flag = {"overrides": "override"}.get(name, name).replace("_", "-")
            raise RunError(f"--{flag} goes with {goes}")


def _sprout(request: PlotRequest, checkpoint: Path) -> tuple[Path, ...]:
    from sparsejax.checkpoint.load import load
    from sparsejax.plots.sprout_report import TOKENS, TextSource, draw_report
    from sparsejax.training.run_folder import best_of

    ck = load(best_of(checkpoint), kind="sprout", overrides=request.overrides)
    text = TextSource(request.data, request.tokenizer, TOKENS if request.tokens is None else request.tokens)
    out = request.out or Path("sprout_plots")
    return draw_report(ck, out, text, top_k=request.top_k, name=checkpoint.stem)


def _force_field(request: PlotRequest) -> tuple[Path, ...]:
    from sparsejax.checkpoint.load import load
    from sparsejax.plots.force_field_files import draw_data, draw_trajectory
    from sparsejax.training.run_folder import best_of

    checkpoint, data = request.checkpoint, request.data
    if (checkpoint is None or data is None) and (request.trajectory is None or checkpoint is not None):
        raise RunError("plot force-field needs --checkpoint FILE with --data FILE, or --trajectory FILE")
    if checkpoint is None:
        _refuse(request, "overrides", goes="--checkpoint FILE")
    out, paths = request.out or Path("force_field_plots"), tuple[Path, ...]()
    if checkpoint is not None and data is not None:
        ck = load(best_of(checkpoint), kind="force_field", overrides=request.overrides)
        paths = draw_data(ck, data, out, name=checkpoint.stem)
    if request.trajectory is not None:
        paths += draw_trajectory(request.trajectory, out)
    return paths
