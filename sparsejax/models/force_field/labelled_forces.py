"""What a force field says of labelled structures, beside their labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax.models.force_field.dataset import ForceFieldDataset, LabelledStructure
from sparsejax.models.force_field.dataset_sources import is_data_set, labelled_structures

_TOGETHER = 256


class ComparedForces(NamedTuple):
    """Predictions and labels of a data set: n atoms of s structures.

    Attributes:
      predicted: (n, 3) eV/A.
      reference: (n, 3) eV/A.
      species: (n,) atomic numbers.
      owners: (n,) the structure of each atom.
      energies: (s,) eV, predicted.
      labels: (s,) eV.
    """

    predicted: np.ndarray
    reference: np.ndarray
    species: np.ndarray
    owners: np.ndarray
    energies: np.ndarray
    labels: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(s,) atoms of each structure."""
        return np.bincount(self.owners)


def read_labelled(path: Path, most: int | None = None) -> list[LabelledStructure]:
    """The first labelled structures of a file.

    Args:
      path: HDF5 data set, or any file with results that ASE reads.
      most: structures; all if None.

    Raises:
      DatasetError: it cannot be read.
      ModuleNotFoundError: h5py or ase is missing (extra ``force-field``).
    """
    if is_data_set(path):
        with ForceFieldDataset(path) as dataset:
            return list(islice(dataset, most))
    return list(islice(labelled_structures(path), most))


def compare_forces(force_field: Any, samples: Sequence[LabelledStructure]) -> ComparedForces:
    """Predict labelled structures.

    Args:
      force_field: `ForceField`.
      samples: at least one.

    Raises:
      ValueError: no structures, or one that the network cannot answer for.

    Example:
      >>> from sparsejax.models.force_field.prediction import Prediction
      >>> from sparsejax.models.force_field.structure import Structure
      >>> class Zero:
      ...     def predict(self, all): return [Prediction(0.0, 0 * one.positions, None, None) for one in all]
      >>> atom = Structure(np.array([8]), np.zeros((1, 3)), None, np.zeros(3, bool))
      >>> compare_forces(Zero(), [LabelledStructure(atom, -2.0, np.ones((1, 3)))]).labels
      array([-2.])
    """
    if not samples:
        raise ValueError("there are no labelled structures to compare forces of")
    found: list[Any] = []
    for start in range(0, len(samples), _TOGETHER):
        found += force_field.predict([sample.structure for sample in samples[start : start + _TOGETHER]])
    return ComparedForces(
        predicted=np.concatenate([one.forces for one in found]).astype(np.float64),
        reference=np.concatenate([sample.forces for sample in samples]).astype(np.float64),
        species=np.concatenate([sample.structure.species for sample in samples]),
        owners=np.repeat(np.arange(len(samples)), [len(sample.forces) for sample in samples]),
        energies=np.array([float(one.energy) for one in found]),
        labels=np.array([sample.energy for sample in samples], np.float64),
    )
