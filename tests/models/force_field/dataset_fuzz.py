"""Damages HDF5 data sets at random and judges what reading them gives.

HDF5 files are taken apart by a library in C, which damage can bring down with the whole process: judge in a
child process, as `tests.fuzz` does.
"""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import h5py
import numpy as np

from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_checks import check_dataset
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from tests.models.force_field.samples import samples

SECONDS = 1.0
_NUMBERS = (0, 1, 2, 7, 8, 255, 1 << 15, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 64) - 1)


class DatasetCases:
    """Whole files in both layouts, written once, and the judge of damaged ones.

    Args:
      folder: empty; the file that is judged last stays in it.
    """

    def __init__(self, folder: Path):
        self._file = folder / "x.h5"
        self._contents = [path.read_bytes() for path in whole_files(folder)]
        for content in self._contents:
            self._file.write_bytes(content)
            _read(self._file)

    def judge(self, rng: random.Random) -> str:
        """Damages one file and reads all of it; the outcome's name."""
        self._file.write_bytes(damaged(rng.choice(self._contents), rng))
        start = time.process_time()
        try:
            _read(self._file)
            outcome = "read"
        except DatasetError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 1000 and self._file.name in text, text
            outcome = type(error).__name__
        assert time.process_time() - start < SECONDS
        return outcome


def whole_files(folder: Path) -> list[Path]:
    """The published layout, compressed and plain, and a group per structure."""
    parts = samples()
    written, plain, grouped = (folder / name for name in ("written.h5", "plain.h5", "grouped.h5"))
    with DatasetWriter(written) as writer:
        for sample in parts:
            writer.add(*sample)
    with h5py.File(written) as source, h5py.File(plain, "w") as file:
        for place in (f"{group}/{name}" for group in ("structures", "labels") for name in source[group]):
            file[place] = source[place][...]
    with h5py.File(grouped, "w") as file:
        for number, sample in enumerate(parts[:4]):
            group = file.create_group(f"structures/{number}")
            group["species"], group["positions"] = sample.structure.species, sample.structure.positions
            group["energy"], group["forces"] = np.float64(sample.energy), sample.forces
    return [written, plain, grouped]


def _read(path: Path) -> None:
    problems = check_dataset(path)
    assert all("\n" not in str(problem) for problem in problems)
    with ForceFieldDataset(path) as dataset:
        for number in range(len(dataset)):
            assert dataset[number].forces.shape == (dataset.sizes[number], 3)
    with ForceFieldDataset(path, in_memory=True) as dataset:
        assert len(dataset.energies) == len(dataset)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The file with one to four things wrong, more often in the records than in the numbers."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = _bent(content, rng) or b"\0"
    return content


def _bent(content: bytes, rng: random.Random) -> bytes:
    marks = [content.find(mark, rng.randrange(len(content))) for mark in (b"TREE", b"SNOD", b"HEAP", b"OHDR")]
    near = [mark + rng.randrange(-80, 80) for mark in marks if mark >= 0]
    anywhere = rng.randrange(len(content))
    at = min(max(0, rng.choice((*near, anywhere, rng.randrange(min(len(content), 2048))))), len(content) - 1)
    size, kind = rng.choice((1, 2, 4, 8, 40)), rng.randrange(7)
    if kind == 0 and rng.random() < 0.3:
        return content[:at]
    if kind in (0, 1, 2):
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind in (3, 4):
        letter, width = rng.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8)))
        number = rng.choice((rng.choice(_NUMBERS), rng.randrange(len(content)))) % (1 << (8 * width))
        return content[:at] + struct.pack(f"<{letter}", number) + content[at + width :]
    if kind == 5:
        source = rng.randrange(len(content))
        piece = content[source : source + size]
        return content[:at] + piece + content[at + len(piece) :]
    return (
        content[:at] + content[at + size :]
        if rng.random() < 0.3
        else content[:at] + bytes(size) + content[at + size :]
    )
