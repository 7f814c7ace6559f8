"""Predictions beside labels: order, owners, and the files that labels come from."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.dataset import LabelledStructure
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.labelled_forces import compare_forces, read_labelled
from sparsejax.models.force_field.prediction import Prediction
from sparsejax.models.force_field.structure import Structure


class Shifted:
    """Forces are the positions plus a hundredth, energies the numbers of atoms."""

    def predict(self, structures):
        return [Prediction(len(one.positions), one.positions + 0.01, None, None) for one in structures]


def sample(species):
    places = np.arange(3.0 * len(species)).reshape(-1, 3)
    structure = Structure(np.array(species), places, None, np.zeros(3, bool))
    return LabelledStructure(structure, -1.0 * len(species), places)


def test_atoms_keep_their_order_and_their_structure(monkeypatch):
    monkeypatch.setattr("sparsejax.models.force_field.labelled_forces._TOGETHER", 2)
    found = compare_forces(Shifted(), [sample([6, 8]), sample([1]), sample([7, 7, 1])])
    np.testing.assert_allclose(found.predicted - found.reference, 0.01)
    assert found.species.tolist() == [6, 8, 1, 7, 7, 1]
    assert found.owners.tolist() == [0, 0, 1, 2, 2, 2] and found.sizes.tolist() == [2, 1, 3]
    assert found.energies.tolist() == [2, 1, 3] and found.labels.tolist() == [-2, -1, -3]
    with pytest.raises(ValueError, match="no labelled structures"):
        compare_forces(Shifted(), [])


def test_labels_come_from_hdf5_and_from_what_ase_reads(tmp_path):
    ase = pytest.importorskip("ase")
    pytest.importorskip("h5py")
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    from sparsejax.models.force_field.dataset_sources import write_dataset

    frames = []
    for number in range(3):
        atoms = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
        atoms.calc = SinglePointCalculator(atoms, energy=float(number), forces=np.full((2, 3), 0.5))
        frames.append(atoms)
    write(tmp_path / "some.extxyz", frames)
    write_dataset(frames, tmp_path / "some.h5")
    for name in ("some.extxyz", "some.h5"):
        assert [one.energy for one in read_labelled(tmp_path / name)] == [0, 1, 2]
        assert [one.energy for one in read_labelled(tmp_path / name, most=2)] == [0, 1]
    with pytest.raises(DatasetError):
        read_labelled(tmp_path / "none.h5")
