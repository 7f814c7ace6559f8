"""All sizes of the force field side by side: exported, timed by batch, and their errors looked at.

``sparsejax bench force_field_sizes --report DIR`` writes ``report.html``, ``report.json``, pictures, and
every network as ``.pt`` in the published layout and as a StableHLO program.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.bench.force_field import systems
from sparsejax.bench.force_field.errors import errors_of, force_field_of, labelled_by
from sparsejax.bench.force_field.systems import Network, Task
from sparsejax.bench.machine import Machine
from sparsejax.bench.pinned import allowed_cores, run_pinned, tell
from sparsejax.bench.report import Row
from sparsejax.bench.timing import race
from sparsejax.checkpoint.native import durable

_THREADS = 2
_FLAT = 1 << 20  # bytes of a MB


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      batches: molecules in a call.
      molecules: that errors are taken from, where there is no data.
      most: structures of the data, the first ones.
    """

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    molecules: int = 64
    most: int = 2000


QUICK = Plan((1, 2), 4, 8)


@dataclass(frozen=True)
class Export:
    """One network as files.

    Attributes:
      network: its name.
      trained: whether its weights come from a file.
      variant: of the network.
      parameters: numbers of it that are trained.
      pt: file in the published layout.
      stablehlo: program that runs without this library; None where it cannot be written.
      energy_error: eV, of the program's energy of one molecule to ours.
      force_error: eV/A, likewise.
    """

    network: str
    trained: bool
    variant: str
    parameters: int
    pt: Path
    stablehlo: Path | None
    energy_error: float | None
    force_error: float | None

    def to_json(self) -> dict[str, Any]:
        """As a dict that JSON can carry."""
        return {
            "network": self.network,
            "trained": self.trained,
            "variant": self.variant,
            "parameters": self.parameters,
            "pt": self.pt.name,
            "pt_mb": megabytes(self.pt),
            "stablehlo": None if self.stablehlo is None else self.stablehlo.name,
            "stablehlo_mb": None if self.stablehlo is None else megabytes(self.stablehlo),
            "stablehlo_energy_error": self.energy_error,
            "stablehlo_force_error": self.force_error,
        }


def write_report(
    folder: Path, checkpoints: Sequence[Path] = (), data: Path | None = None, *, quick: bool = False
) -> tuple[Path, ...]:
    """Export, measure and analyse the three published sizes and what else the checkpoints hold.

    Args:
      folder: to write to; made if needed.
      checkpoints: trained networks; the sizes without one have random weights, whose errors mean nothing.
      data: labelled structures, HDF5 or what ASE reads; without, the first network is the reference on
        built-in molecules.
      quick: few sizes and structures: a test of the report.

    Returns:
      the files.

    Raises:
      CheckpointError: a checkpoint cannot be read.
      DatasetError: the data cannot be read.
      ValueError: a structure of the data that a network cannot answer for.
      ModuleNotFoundError: matplotlib, ase or h5py is missing.
    """
    from sparsejax.bench.force_field.sizes_page import pictures, write_page
    from sparsejax.models.force_field.labelled_forces import read_labelled
    from sparsejax.plots.style import write_figures

    networks, plan = systems.networks(checkpoints), QUICK if quick else Plan()
    folder.mkdir(parents=True, exist_ok=True)
    if data is None:
        samples, reference = labelled_by(networks[0], plan.molecules), networks[0].name
        compared = networks[1:]
    else:
        samples, reference, compared = read_labelled(data, plan.most), data.name, networks
    exports = [export(network, folder) for network in networks]
    rows = run(quick, checkpoint=checkpoints)
    errors = [errors_of(network, samples) for network in compared]
    drawn = write_figures(folder, pictures(times_of(rows), errors))
    document = {
        "reference": reference,
        "reference_trained": data is not None or networks[0].trained,
        "structures": len(samples),
        "networks": [one.to_json() for one in exports],
        "speed": [{**row.quality, "ms": row.ours, "best_ms": row.best["ours"]} for row in rows],
        "device": rows[0].device if rows else "",
        "threads": rows[0].threads if rows else 0,
        "errors": [one.to_json() for one in errors],
    }
    table = folder / "report.json"
    durable.replace_json(table, document)
    page = write_page(folder / "report.html", document, drawn)
    programs = [path for one in exports for path in (one.pt, one.stablehlo) if path is not None]
    return (page, table, *programs, *drawn)


def run(quick: bool = False, *, checkpoint: Sequence[str | Path] = (), threads: int = 1) -> list[Row]:
    """Time of energy and forces of every size by batch, in a child process.

    Args:
      quick: small batches and fewer repetitions.
      checkpoint: files of trained networks; each takes the place of the random one of its size.
      threads: not used: every network has the two threads of ``bench force_field``.
    """
    del threads
    options = {"quick": quick, "checkpoints": [str(path) for path in checkpoint]}
    return run_pinned(__name__, options, min(_THREADS, len(allowed_cores())))


def export(network: Network, folder: Path) -> Export:
    """Write a network as ``.pt`` and as StableHLO, and run the latter."""
    import jax

    from sparsejax.checkpoint.checkpoint import Checkpoint
    from sparsejax.checkpoint.save import export_pt
    from sparsejax.models.force_field.stablehlo_file import export_stablehlo

    config, stem = network.config, network.name.lower().replace("-", "_").replace(" ", "_")
    ck = Checkpoint("force_field", config.variant, config, jax.device_put(network.params), {})
    pt = folder / f"{stem}.pt"
    export_pt(ck, pt)
    told = network.name, network.trained, config.variant, config.num_parameters, pt
    program = folder / f"{stem}.stablehlo.zip"
    try:
        export_stablehlo(ck, program)
    except ValueError as error:
        if "flatbuffers" not in str(error):
            raise
        return Export(*told, None, None, None)
    return Export(*told, program, *_program_errors(network, program))


def measure(*, quick: bool, threads: int, checkpoints: Sequence[str] = ()) -> list[Row]:
    """Time of energy and forces by batch; the networks are raced against each other."""
    plan, machine = QUICK if quick else Plan(), Machine.describe(threads)
    rows = []
    for batch in plan.batches:
        for row in batch_rows(systems.networks(checkpoints), batch, machine, quick=quick):
            tell(row)
            rows.append(row)
    return rows


def batch_rows(networks: Sequence[Network], batch: int, machine: Machine, *, quick: bool) -> list[Row]:
    """A row for each network, of one race."""
    tasks = {network.name: Task(network, tuple(systems.molecules(batch))) for network in networks}
    calls = {name: systems.ours(task, systems.usual_filters(task.network))[0] for name, task in tasks.items()}
    times = race(
        calls,
        repetitions=3 if quick else 15,
        repetition_seconds=1e-3 if quick else 20e-3,
        time_limit=3 if quick else 30,
    )
    return [
        Row(
            case=f"{name}, energy and forces, batch {batch}",
            unit="ms",
            ours=1e3 * timing.median,
            peers={},
            quality={"network": name, "batch": batch, "atoms": tasks[name].atoms},
            device=machine.device,
            threads=machine.threads,
            versions=machine.versions,
            spread={"ours": round(timing.spread, 3)},
            best={"ours": 1e3 * timing.best},
            first_call={"ours": timing.first_call},
        )
        for name, timing in times.items()
    ]


def _program_errors(network: Network, program: Path) -> tuple[float, float]:
    """How far the program is from `ForceField.predict`, of one molecule: eV and eV/A."""
    from jax import export as jax_export

    from sparsejax.models.force_field.edge_program import edge_inputs
    from sparsejax.models.force_field.stablehlo_file import PROGRAM

    with zipfile.ZipFile(program) as archive:
        loaded = jax_export.deserialize(bytearray(archive.read(PROGRAM)))
    (structure,) = systems.molecules(1)
    found = loaded.call(*edge_inputs(structure, network.config.cutoff))
    ours = force_field_of(network).predict(structure)
    energy = abs(float(found["energy"]) - float(ours.energy))
    return energy, float(np.abs(np.asarray(found["forces"]) - ours.forces).max())


def times_of(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Milliseconds by network and batch."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row.quality["network"], {})[row.quality["batch"]] = row.ours
    return found


def megabytes(path: Path) -> float:
    """Size of a file, to hundredths of a MB (2^20 bytes)."""
    return round(path.stat().st_size / _FLAT, 2)
