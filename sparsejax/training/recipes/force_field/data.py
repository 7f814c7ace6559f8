"""Labelled structures for the training of a force field: read, cut into parts, told apart by checksums."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsejax.checkpoint.native import durable
from sparsejax.models.force_field.dataset import ForceFieldDataset, LabelledStructure, split_indices
from sparsejax.models.force_field.dataset_sources import is_data_set, labelled_structures

Samples = Sequence[LabelledStructure]

_HELD_ATOMS = 5_000_000  # 300 MB; larger data sets are read from their files again and again


class Parts(NamedTuple):
    """What is trained on, and what is held out.

    Attributes:
      training: labelled structures.
      held_out: labelled structures.
      checksum: of the files and of the cut.
    """

    training: Samples
    held_out: Samples
    checksum: str


def read_parts(data: Path, validation_data: Path | None, *, train_ratio: float, seed: int) -> Parts:
    """Read a data set and cut it, or read two.

    Args:
      data: HDF5, or what ASE reads.
      validation_data: the same, held out; None holds out a part of ``data``.
      train_ratio: of ``data`` to train on, if nothing else is held out.
      seed: of the cut.

    Raises:
      DatasetError: a file is missing or damaged, or a structure has no labels.
      ValueError: a part would be empty.
      ModuleNotFoundError: h5py, or for other files ase, is missing (extra ``force-field``).
    """
    samples = _read(data)
    checksum = f"{durable.crc32(data):08x}"
    if validation_data is not None:
        held_out = _read(validation_data)
        return _checked(Parts(samples, held_out, f"{checksum}-{durable.crc32(validation_data):08x}"), data)
    if not 0 < train_ratio < 1:
        raise ValueError(f"--train-ratio must be between 0 and 1, not {train_ratio}")
    cut = split_indices(len(samples), (train_ratio, 1 - train_ratio), seed=seed)
    of_cut = zlib.crc32(np.asarray(cut[1], np.int64).tobytes())
    training, held_out = (_some(samples, numbers) for numbers in cut)
    return _checked(Parts(training, held_out, f"{checksum}-{of_cut:08x}"), data)


def _read(path: Path) -> Samples:
    if not is_data_set(path):
        return list(labelled_structures(path))
    dataset = ForceFieldDataset(path)
    if dataset.sizes.sum() > _HELD_ATOMS:
        return dataset
    with dataset:
        return list(dataset)


def _some(samples: Samples, numbers: np.ndarray) -> Samples:
    if isinstance(samples, ForceFieldDataset):
        return samples.subset(numbers)
    return [samples[number] for number in numbers]


def _checked(parts: Parts, data: Path) -> Parts:
    for name, some in (("to train on", parts.training), ("held out", parts.held_out)):
        if not len(some):
            raise ValueError(f"{data}: leaves no structure {name}; give more, or another --train-ratio")
    return parts
