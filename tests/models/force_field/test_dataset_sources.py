"""Data sets from and to ASE's atoms and files."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_sources import (
    LabelNames,
    from_atoms,
    labelled_structures,
    to_atoms,
    write_dataset,
    write_extxyz,
)
from tests.models.force_field.samples import assert_same, samples

pytest.importorskip("h5py")
ase = pytest.importorskip("ase")
ase_io = pytest.importorskip("ase.io")


def test_atoms_and_trajectory_files_come_through_exactly(tmp_path):
    parts = samples()
    ase_io.write(tmp_path / "samples.traj", [to_atoms(sample) for sample in parts])
    assert write_dataset(tmp_path / "samples.traj", tmp_path / "a.h5") == 8
    assert write_dataset(map(to_atoms, parts), tmp_path / "b.h5") == 8
    assert write_dataset(ForceFieldDataset(tmp_path / "a.h5"), tmp_path / "c.h5") == 8
    assert write_dataset([tmp_path / "samples.traj"] * 2, tmp_path / "c.h5", mode="append") == 16
    assert len(ForceFieldDataset(tmp_path / "c.h5")) == 24
    for name in "abc":
        for first, second in zip(ForceFieldDataset(tmp_path / f"{name}.h5"), parts, strict=name != "c"):
            assert_same(first, second)


def test_extxyz_comes_through_to_its_eight_decimals(tmp_path):
    parts = samples()
    write_extxyz(parts, tmp_path / "samples.extxyz")
    for first, second in zip(labelled_structures(str(tmp_path / "samples.extxyz")), parts, strict=True):
        np.testing.assert_array_equal(first.structure.species, second.structure.species)
        np.testing.assert_array_equal(first.structure.pbc, second.structure.pbc)
        np.testing.assert_allclose(first.structure.positions, second.structure.positions, atol=6e-9)
        np.testing.assert_allclose(first.forces, second.forces, atol=6e-9)
        assert first.energy == pytest.approx(second.energy, rel=1e-12)
        assert (first.stress is None) == (second.stress is None)
        if second.stress is not None:
            np.testing.assert_allclose(first.stress, second.stress, rtol=1e-7)
            np.testing.assert_allclose(first.structure.cell, second.structure.cell, rtol=1e-7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.extxyz"]


def test_labels_under_other_names_and_stress_as_a_matrix():
    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[4, 4, 4], pbc=True)
    atoms.info["REF_energy"] = -3.0
    atoms.info["REF_stress"] = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    names = LabelNames("REF_energy", "REF_forces", "REF_stress")
    sample = from_atoms(atoms, names)
    assert sample.energy == -3.0
    np.testing.assert_array_equal(sample.stress, [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(sample.forces, np.ones((2, 3)))
    atoms.info["REF_stress"] = np.arange(4.0)
    with pytest.raises(DatasetError, match=r"a stress is \(6,\) or \(3, 3\), not \(4,\)"):
        from_atoms(atoms, names)


def test_missing_and_stale_labels_are_told(tmp_path):
    atoms = to_atoms(samples()[0])
    ase_io.write(tmp_path / "bare.xyz", ase.Atoms("H"))
    with pytest.raises(
        DatasetError, match=r"bare.xyz: structure 0: has no 'energy' \(there are: no results\)"
    ):
        write_dataset(tmp_path / "bare.xyz", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
    with pytest.raises(DatasetError, match="has no 'REF_energy' .there are: energy, forces"):
        from_atoms(atoms, LabelNames("REF_energy"))
    atoms.positions[0] += 0.1
    with pytest.raises(DatasetError, match="atoms: changed .positions. after its results were computed"):
        from_atoms(atoms)


def test_unreadable_files_tell_one_line(tmp_path):
    (tmp_path / "a.extxyz").write_text("2\nnothing\nH 0 0\n")
    with pytest.raises(DatasetError, match="a.extxyz: ASE cannot read it") as caught:
        list(labelled_structures(tmp_path / "a.extxyz"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="gone.xyz: does not exist"):
        list(labelled_structures(tmp_path / "gone.xyz"))
