"""Labelling into a data set: order, failures, kill and resumption, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase")
pytest.importorskip("h5py")

from ase import Atoms
from ase.calculators.emt import EMT

from sparsejax.models.force_field import labels
from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.labels import label_dataset
from sparsejax.models.force_field.teachers import label_one

LENGTHS = np.linspace(0.8, 1.6, labels.CHUNK + 8)


def structures(lengths=LENGTHS):
    made = [Atoms("N2", [[0, 0, 0], [0, 0, length]]) for length in lengths]
    made[3] = Atoms("Xe")
    return made


class Stopped(Exception):
    pass


def test_a_stopped_labelling_goes_on_and_keeps_the_order(tmp_path):
    path, told = tmp_path / "n2.h5", []

    def stop(done, failed):
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        label_dataset(structures(), EMT, path, processes=1, told=stop)
    assert not path.exists()
    with pytest.raises(DatasetError, match=r"n2.h5.parts: holds labels of other structures"):
        label_dataset(structures(LENGTHS + 0.01), EMT, path)
    found = label_dataset(structures(), EMT, path, processes=1, told=lambda *counts: told.append(counts))
    before = told[0][0]
    assert 0 < before < len(LENGTHS)
    assert told[-1] == (len(LENGTHS), 1)
    assert found.failures == {3: "NotImplementedError: No EMT-potential for Xe"}
    assert found.labelled == len(LENGTHS) - 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["n2.h5"]
    kept = [atoms for atoms in structures() if len(atoms) == 2]
    with ForceFieldDataset(path) as dataset:
        assert len(dataset) == len(kept)
        for sample, atoms in zip(dataset, kept, strict=True):
            expected = label_one(atoms, EMT())
            np.testing.assert_array_equal(sample.structure.positions, atoms.positions)
            assert sample.energy == expected.energy
            np.testing.assert_allclose(sample.forces, expected.forces, rtol=1e-6)
            assert sample.stress is None
    assert label_dataset(structures(), EMT, path) == found  # nothing is left to do
    with pytest.raises(DatasetError, match="exists and holds other labels; give another name"):
        label_dataset(structures(LENGTHS + 0.01), EMT, path)


def test_long_forces_and_hopeless_structures(tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "labelled_chunks", in_this_process)
    path = tmp_path / "near.h5"
    found = label_dataset([structures()[0], structures()[-1]], EMT, path, max_force=10.0)
    assert list(found.failures) == [0]
    assert "longer than max_force = 10" in found.failures[0]
    with pytest.raises(ValueError, match="the teacher failed on all 1 structures, first: NotImplemented"):
        label_dataset([Atoms("Xe")], EMT, tmp_path / "none.h5")
    (tmp_path / "other.h5.parts").mkdir()
    (tmp_path / "other.h5.parts" / "letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match=r"other.h5.parts: holds something else"):
        label_dataset(structures(), EMT, tmp_path / "other.h5")


def in_this_process(chunks, teacher, *, processes):
    for number, some in chunks:
        yield number, [label_one(atoms, teacher()) for atoms in some]
