"""Every writer of the library, each as a function of a path and of what to write there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsejax.bench import report as bench_report
from sparsejax.checkpoint import export_file, gguf, json_file, npz_file, store, torch_file
from sparsejax.checkpoint.errors import CheckpointError, ExportError
from sparsejax.checkpoint.native import durable
from sparsejax.models.force_field import labels
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_sources import write_extxyz
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from sparsejax.models.force_field.md.trajectory import Frame, TrajectoryWriter
from sparsejax.models.force_field.structure import Structure
from sparsejax.models.force_field.teachers import Failure
from sparsejax.models.sparse_inference.store.neuron_file import write_neurons
from sparsejax.ops.sparse_ffn import FFNWeights
from sparsejax.plots.style import single, write_figures
from sparsejax.training.logs import RoundLog
from sparsejax.training.metric_log import MetricLog
from sparsejax.training.recipes.force_field.md_log import DynamicsLog
from tests.models.force_field.samples import samples


class Writer(NamedTuple):
    """A way to write.

    Attributes:
      write: puts a version, 1 or 2, at a path; of appending writers it adds to what is there.
      name: of the file or directory.
      error: that a user sees when the system refuses.
    """

    write: Callable[[Path, int], object]
    name: str
    error: type[Exception]


def _numbers(version: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(version).standard_normal(shape or (3000,)).astype(np.float32)


def _neurons(path: Path, version: int) -> None:
    write_neurons(path, [FFNWeights(_numbers(version, 64, 16), _numbers(version, 64, 16))])


def _dataset(path: Path, version: int, mode: str = "replace") -> None:
    with DatasetWriter(path, mode=mode) as writer:
        for sample in samples((3, 4, 5) * 20, seed=version):
            writer.add(*sample)


def _figure(path: Path, version: int) -> None:
    figure, axis = single()
    axis.plot(_numbers(version, 50))
    write_figures(path.parent, {path.stem: figure})


def _row(version: int) -> bench_report.Row:
    told = {"case": "long " * 500, "unit": "ms", "ours": float(version), "peers": {"numpy": 1.0}}
    return bench_report.Row(**told, quality={}, device="cpu", threads=1, versions={})


def _readme(path: Path, version: int) -> None:
    if not path.exists():
        path.write_text("<!-- bench:x:begin -->\n<!-- bench:x:end -->\n")
    bench_report.update_readme(path, "x", [_row(version)])


def _parts(path: Path, version: int) -> None:
    labels._write_part(path, [Failure(f"reason {version} {number}") for number in range(300)])


WHOLE = {
    "torch": Writer(lambda path, v: torch_file.write({"w": _numbers(v)}, path), "x.pt", ExportError),
    "npz": Writer(lambda path, v: npz_file.write({"w": _numbers(v)}, path), "x.npz", ExportError),
    "json": Writer(lambda path, v: json_file.write_json({"w": _numbers(v)}, path), "x.json", ExportError),
    "gguf": Writer(
        lambda path, v: gguf.write_gguf(path, {"a": v}, {"w": _numbers(v)}), "x.gguf", ExportError
    ),
    "neurons": Writer(_neurons, "x.neurons", ExportError),
    "exports": Writer(
        lambda path, v: export_file.write_export(_numbers(v).tobytes(), path), "x.zip", ValueError
    ),
    "HDF5": Writer(_dataset, "x.h5", DatasetError),
    "HDF5, grown": Writer(lambda path, v: _dataset(path, v, "append"), "x.h5", DatasetError),
    "extended XYZ": Writer(
        lambda path, v: write_extxyz(samples((5,) * 9, seed=v), path), "x.xyz", ExportError
    ),
    "labels on the way": Writer(_parts, "part.npz", ExportError),
    "JSON of runs and reports": Writer(
        lambda path, v: durable.replace_json(path, {"a": _numbers(v).tolist()}), "run.json", OSError
    ),
    "pages and tables": Writer(
        lambda path, v: durable.replace_text(path, f"{v}\n" * 3000), "x.html", OSError
    ),
    "pictures": Writer(_figure, "x.png", OSError),
    "rows of a benchmark": Writer(
        lambda path, v: bench_report.write_rows([_row(v)], path), "x.json", OSError
    ),
    "table of the README": Writer(_readme, "README.md", OSError),
}
"""Writers that replace a file in one step."""

DIRECTORIES = {
    "native checkpoint": Writer(
        lambda path, v: store.write_directory(path, {"version": v}, {"w": _numbers(v)}, {"m": _numbers(v)}),
        "model",
        CheckpointError,
    )
}
"""Writers that replace a directory; they also write training states, MD restarts and predictors."""


def _metrics(path: Path, version: int) -> None:
    with MetricLog(path, keep=10 * (version - 1)) as log:
        for step in range(10 * version - 9, 10 * version + 1):
            log.append(step, {"loss": 1 / step, "other": 3.0})


def _rounds(path: Path, version: int) -> None:
    with RoundLog(path, ("loss", "other"), keep=10 * (version - 1)) as log:
        log.append(10 * (version - 1), {"loss": np.arange(10), "other": np.arange(10)})


def _trajectory(path: Path, version: int) -> None:
    atoms = Structure(np.array([8, 1, 1]), np.zeros((3, 3)), None, np.zeros(3, bool))
    keep = None if version == 1 else 9
    with TrajectoryWriter(path, atoms, np.ones(3), keep_until=keep) as writer:
        for step in range(10 * version - 10, 10 * version):
            place = _numbers(step, 3, 3)
            writer.write([[Frame(step, float(step), place, place, place, -1.5)]])
            writer.flush()


def _dynamics(path: Path, version: int) -> None:
    options = {"timestep": 1.0, "replicas": False, "periodic": False}
    with DynamicsLog(path, keep=10 * (version - 1) - 1, **options) as log:
        steps = np.arange(10 * version - 10, 10 * version)
        names = ("potential", "kinetic", "temperature", "conserved")
        log.append({"step": steps, **dict.fromkeys(names, np.ones((10, 1)))})


APPENDING = {
    "dynamics": Writer(_dynamics, "run.csv", OSError),
    "metrics": Writer(_metrics, "metrics.jsonl", OSError),
    "rounds": Writer(_rounds, "log.csv", OSError),
    "trajectory": Writer(_trajectory, "x.traj", OSError),
    "extended XYZ trajectory": Writer(_trajectory, "x.extxyz", OSError),
}
"""Writers that add to a file."""
