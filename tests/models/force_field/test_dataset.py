"""Reading both layouts, cutting data sets, and one line for each way a file can be broken."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sparsejax.models.force_field.dataset import ForceFieldDataset, split_indices
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_statistics import dataset_statistics
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from tests import golden
from tests.models.force_field.samples import SIZES, assert_same, samples

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "samples.h5"
    with DatasetWriter(path) as writer:
        for sample in samples():
            writer.add(*sample)
    return path


@pytest.fixture
def broken(whole, tmp_path):
    """A copy to be damaged."""
    path = tmp_path / "broken.h5"
    path.write_bytes(whole.read_bytes())
    return path


def grouped(path, parts):
    with h5py.File(path, "w") as file:
        for number, sample in enumerate(parts):
            structure = sample.structure
            group = file.create_group(f"structures/{number}")
            group["species"], group["positions"] = structure.species, structure.positions
            group["cell"] = np.zeros((3, 3)) if structure.cell is None else structure.cell
            group["pbc"], group["energy"], group["forces"] = structure.pbc, sample.energy, sample.forces
            if sample.stress is not None:
                group["stress"] = sample.stress
    return path


@pytest.mark.golden("dataset_small")
@pytest.mark.parametrize("in_memory", [False, True])
def test_published_file_reads_back_exactly(in_memory):
    path = golden.path("force_field", "dataset_small.h5")
    with h5py.File(path) as file, ForceFieldDataset(path, in_memory=in_memory) as dataset:
        splits = file["structures/atomic_numbers_splits"][...]
        assert len(dataset) == 8
        np.testing.assert_array_equal(dataset.energies, file["labels/energy"])
        for number, sample in enumerate(dataset):
            atoms = slice(splits[number], splits[number + 1])
            np.testing.assert_array_equal(sample.structure.species, file["structures/atomic_numbers"][atoms])
            np.testing.assert_array_equal(sample.structure.positions, file["structures/positions"][atoms])
            np.testing.assert_array_equal(sample.forces, file["labels/forces"][atoms])
            assert sample.energy == file["labels/energy"][number]
            assert sample.structure.cell is None and sample.stress is None


@pytest.mark.parametrize("in_memory", [False, True])
def test_both_layouts_read_alike(whole, tmp_path, in_memory):
    parts = samples((3, 1, 5, 4, 2, 3, 5, 6, 1, 2, 1, 1))  # "10" comes after "9", not after "1"
    other = grouped(tmp_path / "groups.h5", parts)
    with ForceFieldDataset(other, in_memory=in_memory) as dataset:
        for first, second in zip(dataset, parts, strict=True):
            assert_same(first, second)
        np.testing.assert_array_equal(dataset.energies, [sample.energy for sample in parts])
        assert dataset.sizes.tolist() == [sample.structure.num_atoms for sample in parts]
    with ForceFieldDataset(whole, in_memory=in_memory) as dataset:
        for first, second in zip(dataset, samples(), strict=True):
            assert_same(first, second)


def test_indices_subsets_slices_and_copies_show_the_same_structures(whole):
    parts = samples()
    dataset = ForceFieldDataset(whole, [5, 0, -1])
    assert dataset.sizes.tolist() == [SIZES[5], SIZES[0], SIZES[-1]]
    assert_same(dataset[-1], parts[-1])
    assert_same(dataset.subset([1])[0], parts[0])
    assert_same(dataset[1:][1], parts[-1])
    np.testing.assert_array_equal(dataset.species(0), parts[5].structure.species)
    copy = pickle.loads(pickle.dumps(dataset))
    dataset.close()
    assert_same(copy[0], parts[5])
    assert_same(dataset[0], parts[5])  # opens again
    with pytest.raises(IndexError, match="there is no structure 3 of 3"):
        dataset[3]
    with pytest.raises(IndexError, match="indices reach beyond its 8 structures"):
        ForceFieldDataset(whole, [8])


def test_labels_may_point_at_structures(broken):
    with h5py.File(broken, "r+") as file:
        same = np.flatnonzero(np.array(SIZES) == 3)
        file["labels/structure_indices"][same] = file["labels/structure_indices"][...][same[::-1]]
    dataset, parts = ForceFieldDataset(broken), samples()
    np.testing.assert_array_equal(dataset[0].structure.positions, parts[5].structure.positions)
    np.testing.assert_array_equal(dataset[0].forces, parts[0].forces)


def test_arrays_that_are_not_required_may_be_missing(broken):
    with h5py.File(broken, "r+") as file:
        for name in ("stress", "stress_mask", "structure_indices"):
            del file[f"labels/{name}"]
        del file["metadata"]
    dataset = ForceFieldDataset(broken)
    assert_same(dataset[2], samples()[2]._replace(stress=None))


def _delete(place):
    def damage(file):
        del file[place]

    return damage


def _set(place, where, value):
    def damage(file):
        file[place][where] = value

    return damage


def _replace(place, value):
    def damage(file):
        del file[place]
        file[place] = value

    return damage


AT_OPENING = {
    "missing group": (_delete("labels"), "labels/energy: is missing .and 2 more: check_dataset lists them"),
    "missing array": (_delete("structures/pbc"), "structures/pbc: is missing"),
    "wrong dtype": (
        _replace("structures/positions", np.zeros((29, 3), int)),
        "structures/positions: must hold floating-point numbers, not int64",
    ),
    "text": (_replace("labels/energy", ["a"] * 8), "labels/energy: must hold floating-point numbers"),
    "wrong shape": (
        _replace("labels/forces", np.zeros((29, 2))),
        r"labels/forces: must be of shape \(rows of forces, 3\) with rows of forces = 29, not \(29, 2\)",
    ),
    "wrong length": (
        _replace("structures/cells", np.zeros((7, 3, 3))),
        r"structures/cells: must be of shape \(structures, 3, 3\) with structures = 8, not \(7, 3, 3\)",
    ),
    "an array for a group": (_replace("labels", np.zeros(3)), "labels/energy: is missing"),
    "a group for an array": (
        lambda file: (_delete("labels/energy")(file), file.create_group("labels/energy")),
        "labels/energy: is a group, not an array",
    ),
    "splits that end early": (
        _set("structures/atomic_numbers_splits", 8, 28),
        "structures/atomic_numbers_splits: must run from 0 to 29, not from 0 to 28",
    ),
    "splits that go back": (
        _set("structures/atomic_numbers_splits", 1, 6),
        r"structures/atomic_numbers_splits\[2\]: is below the one before",
    ),
    "forces of other sizes": (
        _set("labels/forces_splits", 1, 2),
        r"labels/forces \(label 0\): has 2 rows; structure 0 has 3 atoms",
    ),
    "labels of no structure": (
        _set("labels/structure_indices", 2, 8),
        r"labels/structure_indices\[2\]: is 8; there are 8 structures",
    ),
}


@pytest.mark.parametrize("case", AT_OPENING)
def test_opening_a_broken_file_tells_one_line(broken, case):
    damage, words = AT_OPENING[case]
    with h5py.File(broken, "r+") as file:
        damage(file)
    with pytest.raises(DatasetError, match=words) as caught:
        ForceFieldDataset(broken)
    assert "\n" not in str(caught.value)
    assert "broken.h5: " in str(caught.value)


WHEN_READ = {
    "energy": (_set("labels/energy", 2, np.nan), r"labels/energy\[2\] \(structure 2\): is nan"),
    "forces": (
        _set("labels/forces", (5, 1), np.inf),
        r"labels/forces\[4\] \(structure 2\): the force on atom 1 is",
    ),
    "stress": (_set("labels/stress", (2, 0), np.nan), r"labels/stress\[2\] \(structure 2\): is \[nan"),
    "positions": (
        _set("structures/positions", (4, 2), np.nan),
        r"structures/positions\[4\] \(structure 2\): atom 0 has the z position nan",
    ),
    "cell": (
        _set("structures/cells", 2, 0.0),
        r"structures/cells\[2\] \(structure 2\): pbc is set but there is no cell",
    ),
    "element": (
        _set("structures/atomic_numbers", 6, 119),
        r"structures/atomic_numbers\[4\] \(structure 2\): atom 2 has atomic number 119",
    ),
    "stress without volume": (
        _set("structures/pbc", (2, 0), False),
        r"labels/stress\[2\] \(structure 2\): is labelled, but only what repeats",
    ),
}


@pytest.mark.parametrize("case", WHEN_READ)
def test_reading_a_bad_structure_tells_one_line(broken, case):
    damage, words = WHEN_READ[case]
    with h5py.File(broken, "r+") as file:
        damage(file)
    dataset = ForceFieldDataset(broken)
    dataset[1]
    with pytest.raises(DatasetError, match=words) as caught:
        dataset[2]
    assert "\n" not in str(caught.value)
    if case == "energy":
        with pytest.raises(DatasetError, match=r"labels/energy\[2\]: is no finite number"):
            _ = dataset.energies


def test_files_that_are_none_tell_one_line(whole, tmp_path):
    data = whole.read_bytes()
    for name, content in {"short.h5": data[: len(data) // 2], "text.h5": b"hello", "none.h5": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            DatasetError, match=f"{name}: is no HDF5 file, or is damaged or cut short"
        ) as caught:
            ForceFieldDataset(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="gone.h5: does not exist"):
        ForceFieldDataset(tmp_path / "gone.h5")
    with pytest.raises(DatasetError, match="is a folder; give an HDF5 file"):
        ForceFieldDataset(tmp_path)


def test_damaged_chunk_tells_one_line(broken):
    with h5py.File(broken) as file:
        chunk = file["structures/positions"].id.get_chunk_info(0)
    data = bytearray(broken.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    broken.write_bytes(data)
    with pytest.raises(DatasetError, match="structure 0 cannot be read: the file is damaged") as caught:
        ForceFieldDataset(broken)[0]
    assert "\n" not in str(caught.value)


def test_no_damaged_byte_gets_further_than_one_line(whole, tmp_path):
    rng, path, refused = np.random.default_rng(0), tmp_path / "damaged.h5", 0
    for number in range(60):
        data = bytearray(whole.read_bytes())
        if number % 3 == 0:
            data = data[: rng.integers(len(data))]
        for where in rng.integers(len(data) if number % 3 == 1 else min(len(data), 4000), size=3):
            data[where] = rng.integers(256)
        path.write_bytes(data)
        try:
            list(ForceFieldDataset(path))
        except DatasetError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_split_is_the_documented_permutation():
    train, validation = split_indices(3883)
    order = np.random.default_rng(42).permutation(3883)
    assert len(train) == 3494  # as published: 219 steps of 16
    np.testing.assert_array_equal(np.concatenate([train, validation]), order)
    parts = split_indices(100, (0.7, 0.1, 0.2), seed=1)
    assert [len(part) for part in parts] == [70, 10, 20]
    assert not np.array_equal(parts[0], split_indices(100, (0.7, 0.1, 0.2), seed=2)[0])
    assert [len(part) for part in split_indices(0)] == [0, 0]


def test_split_keeps_groups_together():
    groups = np.repeat(np.arange(20), 5)
    train, validation = split_indices(100, (0.8, 0.2), groups=groups)
    assert len(train) == 80
    assert not set(groups[train]) & set(groups[validation])
    with pytest.raises(ValueError, match="2 groups are given for 3 structures"):
        split_indices(3, groups=[1, 2])
    with pytest.raises(ValueError, match="add up to 1"):
        split_indices(3, (0.5, 0.4))


def test_statistics_count_what_is_there(whole):
    parts, found = samples(), dataset_statistics(ForceFieldDataset(whole))
    forces = np.concatenate([sample.forces for sample in parts]).astype(float)
    energies = np.array([sample.energy for sample in parts])
    assert (found.structures, found.atoms, found.smallest, found.largest) == (8, 29, 1, 6)
    assert (found.periodic, found.stresses) == (2, 2)
    assert sum(found.elements.values()) == 29
    assert set(found.elements) == {"H", "C", "O"}
    assert found.force_rms == pytest.approx(np.sqrt((forces**2).mean()))
    assert found.force_max == pytest.approx(np.abs(forces).max())
    assert found.energy_std == pytest.approx(energies.std())
    assert found.energy_per_atom_mean == pytest.approx((energies / SIZES).mean())
    with pytest.raises(ValueError, match="there are no structures to count"):
        dataset_statistics(ForceFieldDataset(whole, []))
