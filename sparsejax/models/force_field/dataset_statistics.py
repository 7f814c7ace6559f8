"""What a data set holds, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.structure import SYMBOLS


class DatasetStatistics(NamedTuple):
    """Numbers of a data set.

    Attributes:
      structures: how many.
      atoms: in all.
      smallest: atoms of the smallest structure.
      largest: atoms of the largest.
      elements: atoms of each element, by symbol, most frequent first.
      energy_mean: eV of a structure.
      energy_std: eV of a structure.
      energy_per_atom_mean: eV.
      energy_per_atom_std: eV, over structures.
      force_rms: eV/A, over components; the error of a network that predicts no forces at all.
      force_max: eV/A, the largest component.
      periodic: structures that repeat in some direction.
      stresses: structures with stress labels.
    """

    structures: int
    atoms: int
    smallest: int
    largest: int
    elements: dict[str, int]
    energy_mean: float
    energy_std: float
    energy_per_atom_mean: float
    energy_per_atom_std: float
    force_rms: float
    force_max: float
    periodic: int
    stresses: int


def dataset_statistics(dataset: ForceFieldDataset) -> DatasetStatistics:
    """Read a data set once and count.

    Args:
      dataset: with at least one structure.

    Raises:
      DatasetError: it is damaged, or holds NaN.
      ValueError: it is empty.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.path}: there are no structures to count")
    elements: Counter[int] = Counter()
    squares = largest = 0.0
    periodic = stresses = 0
    for sample in dataset:
        elements.update(sample.structure.species.tolist())
        squares += float((sample.forces.astype(np.float64) ** 2).sum())
        largest = max(largest, float(np.abs(sample.forces).max()))
        periodic += sample.structure.periodic
        stresses += sample.stress is not None
    energies, sizes = dataset.energies, dataset.sizes
    return DatasetStatistics(
        structures=len(dataset),
        atoms=int(sizes.sum()),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        elements={SYMBOLS[number]: count for number, count in elements.most_common()},
        energy_mean=float(energies.mean()),
        energy_std=float(energies.std()),
        energy_per_atom_mean=float((energies / sizes).mean()),
        energy_per_atom_std=float((energies / sizes).std()),
        force_rms=float(np.sqrt(squares / (3 * sizes.sum()))),
        force_max=largest,
        periodic=periodic,
        stresses=stresses,
    )
