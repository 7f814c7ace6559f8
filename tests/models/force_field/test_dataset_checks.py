"""The validator lists every problem with its place."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.dataset_checks import check_dataset
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from tests import golden
from tests.models.force_field.samples import samples

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "samples.h5"
    with DatasetWriter(path) as writer:
        for sample in samples():
            writer.add(*sample)
    return path


@pytest.mark.golden("dataset_small")
def test_published_file_has_no_problem():
    assert check_dataset(golden.path("force_field", "dataset_small.h5")) == []


def test_every_problem_of_values_is_listed_with_its_place(path):
    assert check_dataset(path) == []
    with h5py.File(path, "r+") as file:
        file["labels/energy"][1] = np.nan
        file["labels/energy"][6] = np.inf
        file["labels/forces"][0] = np.nan
        file["structures/atomic_numbers"][3] = 0
        first = file["structures/positions"][9]
        file["structures/positions"][11] = first  # atoms 0 and 2 of structure 3
    found = [str(problem) for problem in check_dataset(path)]
    assert found == [
        "labels/forces[0] (structure 0): the force on atom 0 is [nan, nan, nan]",
        "structures/atomic_numbers[3] (structure 1): atom 0 has atomic number 0",
        "labels/energy[1] (structure 1): is nan",
        "structures/positions[9] (structure 3): atoms 0 and 2 are on one site",
        "labels/energy[6] (structure 6): is inf",
    ]


def test_every_problem_of_structure_is_listed(path):
    with h5py.File(path, "r+") as file:
        del file["structures/pbc"]
        del file["labels/forces_splits"]
        del file["labels/energy"]
        file["labels/energy"] = np.zeros((8, 2))
    places = [problem.place for problem in check_dataset(path)]
    assert places == ["structures/pbc", "labels/energy", "labels/forces_splits"]


def test_labels_of_some_structures_need_to_say_of_which(path):
    with h5py.File(path, "r+") as file:
        del file["labels/structure_indices"]
    assert check_dataset(path) == []  # one for each, in their order
    with h5py.File(path, "r+") as file:
        for name, array in {name: array[...] for name, array in file["labels"].items()}.items():
            del file["labels"][name]
            rows = file["labels/forces_splits"][:-1] if name == "forces" else array[:-1]
            file["labels"][name] = array[: rows[-1]] if name == "forces" else rows
    assert [str(problem) for problem in check_dataset(path)] == [
        "labels: 7 labels for 8 structures need labels/structure_indices"
    ]


def test_groups_are_checked_too(tmp_path):
    path = tmp_path / "groups.h5"
    with h5py.File(path, "w") as file:
        for number, size in enumerate((2, 3)):
            group = file.create_group(f"structures/{number}")
            group["species"], group["energy"] = np.ones(size, int), np.zeros(1)
            group["positions"] = np.arange(3.0 * size).reshape(size, 3)
            group["forces"] = np.zeros((2, 3))
    assert [str(problem) for problem in check_dataset(path)] == [
        "structures/1/forces: must be of shape (atoms, 3) with atoms = 3, not (2, 3)"
    ]
    with h5py.File(path, "r+") as file:
        del file["structures/1"]
        file["structures/1"] = 0.0
        file["structures/0/energy"][0] = np.nan
    assert [str(problem) for problem in check_dataset(path)] == [
        "structures/1: is an array; each structure is a group"
    ]
    with h5py.File(path, "r+") as file:
        del file["structures/1"]
        file["structures/1"] = h5py.SoftLink("/structures/0")
    assert [str(problem) for problem in check_dataset(path)] == [
        "structures/1: is a link to another place; copy what it leads to into the file itself"
    ]
    with h5py.File(path, "r+") as file:
        del file["structures/1"]
        empty = file.create_group("structures/1")
        empty["species"], empty["energy"] = np.ones(0, int), np.zeros(1)
        empty["positions"], empty["forces"] = np.zeros((0, 3)), np.zeros((0, 3))
    assert [str(problem) for problem in check_dataset(path)] == [
        "structures/0/energy (structure 0): is nan",
        "structures/1/species (structure 1): has no atoms",
    ]
