"""A file of structures, labelled by a teacher into a data set: what ``sparsejax label`` calls."""

from __future__ import annotations

from pathlib import Path

from sparsejax.models.force_field.dataset_sources import read_atoms
from sparsejax.models.force_field.labels import Labelling, label_dataset
from sparsejax.models.force_field.perturb import rattled
from sparsejax.models.force_field.teachers import named_teacher
from sparsejax.training.progress import Style, shown_progress


def label_file(
    structures: Path,
    teacher: str,
    out: Path,
    *,
    rattle: int = 0,
    spread: tuple[float, float] = (0.05, 0.15),
    scale: tuple[float, float] = (0.95, 1.05),
    max_force: float | None = None,
    processes: int | None = None,
    seed: int = 0,
    style: Style = "auto",
) -> Labelling:
    """Label the structures of a file, or distorted copies of them.

    Args:
      structures: file that ASE reads.
      teacher: name, see `named_teacher`.
      out: HDF5 file to write.
      rattle: copies of each structure to label, instead of the structures themselves.
      spread: of `rattled`.
      scale: of `rattled`.
      max_force: of `label_dataset`.
      processes: of `label_dataset`.
      seed: of `rattled`.
      style: how progress is shown.

    Raises:
      ValueError: an unknown teacher, a file without structures, or a target that holds something else.
      ModuleNotFoundError: ase, h5py or the teacher's package is missing.
    """
    teach, atoms = named_teacher(teacher), list(read_atoms(structures))
    if rattle:
        atoms = rattled(atoms, rattle, spread=spread, scale=scale, seed=seed)
    with shown_progress("label", start=0, stop=len(atoms), style=style, unit="structure") as update:
        return label_dataset(
            atoms,
            teach,
            out,
            processes=processes,
            max_force=max_force,
            told=lambda done, failed: update(done, f"{failed} left out"),
        )
