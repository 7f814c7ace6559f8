"""HDF5 files that would lead their reader elsewhere, or into more memory than they have bytes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_checks import check_dataset
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from tests.models.force_field.samples import samples

h5py = pytest.importorskip("h5py")

PLACE = "labels/energy"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.h5"
    with DatasetWriter(path) as writer:
        for sample in samples():
            writer.add(*sample)
    return path


def moved(path):
    """The energies, taken out of the file into one beside it."""
    elsewhere = path.with_name("elsewhere.h5")
    with h5py.File(path, "r+") as file, h5py.File(elsewhere, "w") as other:
        other["energy"] = file[PLACE][...]
        del file[PLACE]
        return elsewhere, len(other["energy"])


def external_link(path):
    elsewhere, _ = moved(path)
    with h5py.File(path, "r+") as file:
        file[PLACE] = h5py.ExternalLink(elsewhere, "energy")
    return "labels/energy: is a link to another place"


def external_link_at_the_top(path):
    elsewhere = path.with_name("elsewhere.h5")
    path.rename(elsewhere)
    with h5py.File(path, "w") as file:
        file["structures"], file["labels"] = (
            h5py.ExternalLink(elsewhere, name) for name in ("structures", "labels")
        )
    return "labels: is a link to another place"


def soft_link(path):
    with h5py.File(path, "r+") as file:
        file["labels/again"] = file[PLACE][...]
        del file[PLACE]
        file[PLACE] = h5py.SoftLink("/labels/again")
    return "labels/energy: is a link to another place"


def virtual(path):
    elsewhere, count = moved(path)
    layout = h5py.VirtualLayout((count,), "f8")
    layout[:] = h5py.VirtualSource(elsewhere, "energy", (count,))
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset(PLACE, layout)
    return "keeps its values in other files"


def external_values(path):
    _, count = moved(path)
    raw = path.with_name("raw.bin")
    raw.write_bytes(np.ones(count).tobytes())
    with h5py.File(path, "r+") as file:
        file.create_dataset(PLACE, (count,), "f8", external=[(str(raw), 0, 8 * count)])
    return "keeps its values in other files"


def foreign_filter(path):
    _, count = moved(path)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((count,))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    with h5py.File(path, "r+") as file:
        space = h5py.h5s.create_simple((count,))
        h5py.h5d.create(file.id, PLACE.encode(), h5py.h5t.IEEE_F64LE, space, settings)
    return r"needs the HDF5 filters \[32015\]"


def forged_size(path):
    moved(path)
    with h5py.File(path, "r+") as file:
        file.create_dataset(PLACE, (1 << 40,), "f8", chunks=(1 << 16,), compression="gzip")
    return "claims 8796093022208 bytes and has 0"


@pytest.mark.parametrize(
    "bend",
    [
        external_link,
        external_link_at_the_top,
        soft_link,
        virtual,
        external_values,
        foreign_filter,
        forged_size,
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_leads_elsewhere_is_refused_by_name(bend, in_memory, path):
    told = bend(path)
    with pytest.raises(DatasetError, match=told) as caught:
        ForceFieldDataset(path, in_memory=in_memory)
    assert "\n" not in str(caught.value)
    assert any(told.split(": ")[-1].replace("\\", "") in str(problem) for problem in check_dataset(path))


def test_no_other_file_is_opened(path, monkeypatch):
    """The link leads to a pipe that nobody writes to: following it would wait forever."""
    moved(path)
    os.mkfifo(path.with_name("pipe"))
    with h5py.File(path, "r+") as file:
        file[PLACE] = h5py.ExternalLink(path.with_name("pipe"), "energy")
    with pytest.raises(DatasetError, match="is a link"):
        ForceFieldDataset(path)
    with pytest.raises(DatasetError, match="is a pipe or a device"):
        ForceFieldDataset(path.with_name("pipe"))


def test_small_arrays_that_were_never_filled_are_zeros(path):
    with h5py.File(path, "r+") as file:
        count = len(file["structures/pbc"])
        del (
            file["labels/stress"],
            file["labels/stress_mask"],
            file["structures/cells"],
            file["structures/pbc"],
        )
        file.create_dataset("structures/cells", (count, 3, 3), "f8", chunks=(count, 3, 3))
        file.create_dataset("structures/pbc", (count, 3), "?")
    with ForceFieldDataset(path) as dataset:
        assert dataset[0].structure.cell is None
