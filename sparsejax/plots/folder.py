"""What ``sparsejax plot`` draws: the plots of the family that a folder is of."""

from __future__ import annotations

import importlib
from pathlib import Path

from sparsejax.checkpoint.source_file import is_native
from sparsejax.checkpoint.store import read_header
from sparsejax.training.errors import RunError
from sparsejax.training.run_folder import read_run

_OF_RUNS = ("ultra_sparse", "sprout", "ten", "force_field", "sparse_inference")
_OF_CHECKPOINTS = ("sprout", "ten")


def draw_folder(folder: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Draw the plots of a run or of a sparsejax directory.

    Args:
      folder: that a run of ``sparsejax train`` wrote, or `sparsejax.save`.
      out: folder for the pictures; ``plots`` within the other if not given.

    Returns:
      the PNG files.

    Raises:
      RunError: there is nothing to draw.
      CheckpointError: a checkpoint is damaged.
      ModuleNotFoundError: matplotlib is missing.
    """
    if is_native(folder):
        kind = read_header(folder).fields["kind"]
        if kind not in _OF_CHECKPOINTS:
            raise RunError(f"{folder}: there are no plots of {kind} checkpoints; give the folder of a run")
    else:
        kind = read_run(folder)["settings"].get("family")
        if kind not in _OF_RUNS:
            raise RunError(f"{folder}: there are no plots of {kind} runs")
    return importlib.import_module(f"sparsejax.plots.{kind}").draw_folder(folder, out)
