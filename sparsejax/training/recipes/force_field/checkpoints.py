"""The shipped force field: the smallest published size, taught small molecules by GFN2-xTB.

``python -m sparsejax.training.recipes.force_field.checkpoints FOLDER`` labels, trains and writes it again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.checkpoint.load import load
from sparsejax.checkpoint.save import export_pt
from sparsejax.models.force_field.batches import BucketedBatches
from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_statistics import dataset_statistics
from sparsejax.models.force_field.labels import label_dataset
from sparsejax.models.force_field.losses import ForceFieldLoss
from sparsejax.models.force_field.perturb import rattled
from sparsejax.models.force_field.reference import evaluate
from sparsejax.models.force_field.teachers import gfn2
from sparsejax.training.recipes.force_field import recipe
from sparsejax.training.recipes.force_field.scores import ForceFieldScore, scorer
from sparsejax.training.recipes.force_field.settings import ForceFieldSettings
from sparsejax.training.recipes.manifest import described, record
from sparsejax.typing import Params

FILE = "ultra_tiny_gfn2.pt"
VARIANT = "equivariant"

_COMMAND = "python -m sparsejax.training.recipes.force_field.checkpoints checkpoints"
_ELEMENTS = {"H", "C", "N", "O"}
_UNUSUAL = ("O3", "CH2_s1A1d")  # singlets of another kind than the rest: a network without spin cannot tell
_UNSEEN = ("C3H8", "HCOOCH3", "CH3CH2NH2", "cyclobutene")
_SPREAD, _SCALE = (0.03, 0.15), (0.95, 1.05)
_MAX_FORCE = 30.0  # eV/A; a few collisions would else make up most of the error
_COPIES_UNSEEN = 100


def molecules() -> dict[str, Any]:
    """Small closed-shell molecules of hydrogen, carbon, nitrogen and oxygen, as ``ase.Atoms`` by name."""
    from ase.build import molecule
    from ase.collections import g2

    found = {name: molecule(name) for name in g2.names if name not in _UNUSUAL}
    return {
        name: atoms
        for name, atoms in found.items()
        if set(atoms.get_chemical_symbols()) <= _ELEMENTS and not atoms.get_initial_magnetic_moments().any()
    }


def make_checkpoint(folder: Path, *, copies: int = 200, epochs: int = 24) -> Checkpoint:
    """Label, train, and write the shipped model with its expected outputs and its entry in ``manifest.json``.

    Args:
      folder: target; created if needed.
      copies: distorted ones of each molecule.
      epochs: passes over the training part of them.

    Returns:
      the checkpoint as it is read back from the file.
    """
    began, every = time.monotonic(), molecules()
    seen = [atoms for name, atoms in every.items() if name not in _UNSEEN]
    unseen = [every[name] for name in _UNSEEN]
    with tempfile.TemporaryDirectory() as place:
        data, others = Path(place) / "seen.h5", Path(place) / "unseen.h5"
        _label(seen, copies, data, seed=0)
        _label(unseen, _COPIES_UNSEEN, others, seed=1)
        labelled = time.monotonic() - began
        run = recipe.prepare(training_settings(data, Path(place) / "run", epochs))
        trained = recipe.train(run)
        ck = load(Path(place) / "run" / f"{recipe.BEST}.pt")
        scores = {"held_out": trained.best.score, "unseen_molecules": _score(ck, others)}
        rms = {"held_out": _force_rms(run.held_out), "unseen_molecules": _data_rms(others)}
    folder.mkdir(parents=True, exist_ok=True)
    export_pt(Checkpoint("force_field", VARIANT, ck.config, ck.params), folder / FILE)
    shipped = load(folder / FILE)
    seconds = {"labelling": labelled, "all": time.monotonic() - began}
    made = (
        f"{sum(run.sizes):,} structures, up to {copies} distorted copies of each of {len(seen)} molecules of "
        f"H, C, N and O, labelled by GFN2-xTB; {epochs} epochs of batches of {run.settings.batch_size}, seed "
        f"{run.settings.seed}"
    )
    told = {name: _told(scores[name], rms[name]) for name in scores}
    entry = _entry(folder, shipped, every["CH3CH2OH"])
    times = {f"seconds_{name}": round(value) for name, value in seconds.items()}
    record(folder, {**entry, "made": made, **told, **times})
    return shipped


def training_settings(data: Path, folder: Path, epochs: int) -> ForceFieldSettings:
    """How the shipped model is trained."""
    return ForceFieldSettings(
        data,
        folder,
        hidden_dim=32,
        num_interactions=2,
        num_rbf=10,
        epochs=epochs,
        batch_size=16,
        lr=1e-2,
        early_stopping_patience=0,
        log_interval=100,
        plots=False,
    )


def _label(some: list[Any], copies: int, path: Path, *, seed: int) -> None:
    structures = rattled(some, copies, spread=_SPREAD, scale=_SCALE, seed=seed)
    found = label_dataset(structures, gfn2, path, max_force=_MAX_FORCE)
    print(f"{path.name}: {found.labelled:,} labelled, {len(found.failures):,} left out", flush=True)


def _score(ck: Checkpoint, path: Path) -> ForceFieldScore:
    with ForceFieldDataset(path) as dataset:
        batches = BucketedBatches(list(dataset), ck.config.cutoff, batch_size=32, buckets=1, shuffle=False)
    params: Params = ck.params
    return scorer(ck.config, ForceFieldLoss(), stress=False)(params, batches)


def _force_rms(batches: BucketedBatches) -> float:
    """Error of a network that predicts no force at all; no constant does better on molecules at rest."""
    forces = [batch.labels["forces"][batch.graph.nodes["mask"]] for batch in batches]
    return float(np.sqrt(np.mean(np.concatenate(forces).astype(np.float64) ** 2)))


def _data_rms(path: Path) -> float:
    with ForceFieldDataset(path) as dataset:
        return dataset_statistics(dataset).force_rms


def _told(score: ForceFieldScore, force_rms: float) -> Mapping[str, float]:
    of = score.metrics
    return {
        "force_rmse_eV_per_A": round(of["force_rmse"], 4),
        "force_rms_eV_per_A": round(force_rms, 4),
        "times_better_than_no_force": round(force_rms / of["force_rmse"], 2),
        "force_angle_mean_deg": round(of["angular_error_mean_deg"], 2),
        "energy_rmse_meV_per_atom": round(1e3 * of["energy_per_atom_rmse"], 2),
    }


def _entry(folder: Path, ck: Checkpoint, atoms: Any) -> dict[str, Any]:
    (moved,) = rattled([atoms], 1, spread=(0.05, 0.05), scale=(1.0, 1.0), seed=2)
    inputs = {"z": moved.numbers, "pos": moved.positions}
    found = evaluate(ck, inputs)
    return described(
        folder / FILE,
        ck,
        {**inputs, "energy": found["energy"], "forces": found["forces"]},
        command=_COMMAND,
        parameters=ck.config.num_parameters,
        note="for molecules like those it was taught; its teacher is a semi-empirical method; held-out "
        "structures are other copies of the same molecules, and copies with a force above 30 eV/A are in "
        "neither set; one seed",
    )


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints"))
