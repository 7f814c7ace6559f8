"""Writing: incremental, appended to, checked before anything is stored, whole after any kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from sparsejax.models.force_field import dataset_writer
from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_checks import check_dataset
from sparsejax.models.force_field.dataset_errors import DatasetError
from sparsejax.models.force_field.dataset_writer import DatasetWriter
from tests import golden
from tests.disk_faults import full_disk
from tests.models.force_field.samples import assert_same, samples

h5py = pytest.importorskip("h5py")


def check(path, parts):
    assert check_dataset(path) == []
    with ForceFieldDataset(path) as dataset:
        for first, second in zip(dataset, parts, strict=True):
            assert_same(first, second)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_is_written_in_parts_and_appended_reads_back_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_writer, "_HELD", 7)  # atoms: several writes
    path, parts = tmp_path / "new" / "samples.h5", samples()
    with DatasetWriter(path, metadata={"teacher": "nobody"}) as writer:
        for number, sample in enumerate(parts[:5]):
            writer.add(*sample)
            if number in {1, 2}:
                writer.save()
                check(path, parts[: number + 1])
                before = path.stat()
                writer.save()  # nothing was added
                assert path.stat().st_ino == before.st_ino and path.stat().st_mtime_ns == before.st_mtime_ns
        assert len(writer) == 5
    check(path, parts[:5])
    with DatasetWriter(path, mode="append") as writer:
        assert len(writer) == 5
        for sample in parts[5:]:
            writer.add(*sample)
    check(path, parts)
    with h5py.File(path) as file:
        assert dict(file["metadata"].attrs) == {"teacher": "nobody", "n_structures": 8, "total_atoms": 29}
    with DatasetWriter(path, mode="replace") as writer:
        writer.add(*parts[3])
    check(path, parts[3:4])
    with pytest.raises(DatasetError, match='samples.h5: exists; give mode="replace" or mode="append"'):
        DatasetWriter(path)


@pytest.mark.golden("dataset_small")
def test_published_file_is_appended_to(tmp_path):
    path, published = tmp_path / "samples.h5", golden.path("force_field", "dataset_small.h5")
    path.write_bytes(published.read_bytes())
    with DatasetWriter(path, mode="append") as writer:
        writer.add(*samples()[2])
    check(path, [*ForceFieldDataset(published), samples()[2]])
    with h5py.File(published) as old, h5py.File(path) as new:
        assert {name: array.dtype for name, array in new["labels"].items()} == {
            name: array.dtype for name, array in old["labels"].items()
        }
        assert {name: array.dtype for name, array in new["structures"].items()} == {
            name: array.dtype for name, array in old["structures"].items()
        }
        assert new["structures/positions"].compression_opts == 4
        assert new["metadata"].attrs["teacher_model"] == "student-original-427k"


def test_failure_and_kill_leave_the_last_saved_file(tmp_path, monkeypatch):
    path, parts = tmp_path / "samples.h5", samples()
    with DatasetWriter(path) as writer:
        writer.add(*parts[0])
    with pytest.raises(KeyError), DatasetWriter(path, mode="append") as writer:
        writer.add(*parts[1])
        writer.save()
        writer.add(*parts[2])
        raise KeyError
    check(path, parts[:2])
    program = (
        "import os, signal\n"
        "from sparsejax.models.force_field.dataset_writer import DatasetWriter\n"
        "from tests.models.force_field.samples import samples\n"
        f"writer = DatasetWriter({str(path)!r}, mode='append')\n"
        "writer.add(*samples()[2])\n"
        "writer.save()\n"
        "writer.add(*samples()[3])\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer.save()\n"
    )
    root = os.path.dirname(os.path.dirname(dataset_writer.__file__.split("/models/")[0] + "/"))
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    for leftover in path.parent.glob("samples.h5.*"):
        leftover.unlink()
    check(path, parts[:3])


def test_bad_structures_are_refused_before_anything_is_stored(tmp_path):
    path, (structure, energy, forces, _) = tmp_path / "samples.h5", samples()[0]
    crystal = samples()[2]
    bad = {
        "structure 1: energy holds NaN or infinity; leave the structure out": (structure, np.nan, forces),
        "structure 1: forces holds NaN": (structure, energy, forces * np.inf),
        r"structure 1: forces must be of shape \(3, 3\), not \(2, 3\)": (structure, energy, forces[:2]),
        r"structure 1: energy must be of shape \(\), not \(1,\)": (structure, [energy], forces),
        r"structure 1: stress must be of shape \(6,\), not \(3, 3\)": (*crystal[:3], np.eye(3)),
        "structure 1: only what repeats in three directions has a stress": (
            structure,
            energy,
            forces,
            np.ones(6),
        ),
        "structure 1: there is no element 0": (structure._replace(species=[8, 0, 1]), energy, forces),
        "structure 1: has no atoms": (
            structure._replace(species=[], positions=np.zeros((0, 3))),
            energy,
            np.zeros((0, 3)),
        ),
        "structure 1: atom 1 has the y position nan": (
            structure._replace(positions=np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 1]])),
            energy,
            forces,
        ),
        "structure 1: pbc is set but there is no cell": (
            structure._replace(pbc=np.ones(3, bool)),
            energy,
            forces,
        ),
        "structure 1: could not convert string to float": (structure, "low", forces),
    }
    with DatasetWriter(path) as writer:
        writer.add(structure, energy, forces)
        for words, sample in bad.items():
            with pytest.raises(DatasetError, match=f"samples.h5: {words}") as caught:
                writer.add(*sample)
            assert "\n" not in str(caught.value)
    check(path, samples()[:1])


def test_broken_files_are_not_appended_to(tmp_path):
    path = tmp_path / "samples.h5"
    path.write_bytes(b"hello")
    with pytest.raises(DatasetError, match="samples.h5: is no HDF5 file"):
        DatasetWriter(path, mode="append")
    assert path.read_bytes() == b"hello"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="mode must be one of"):
        DatasetWriter(path, mode="w")


@pytest.mark.parametrize("room", [2 << 20, 3 << 20])
def test_a_disk_that_fills_up_on_the_way_leaves_what_was_saved(room, tmp_path, monkeypatch):
    """HDF5 crashes the process when it meets the end of the disk itself; room is made sure of before."""
    monkeypatch.setattr(dataset_writer, "_HELD", 2000)
    path = tmp_path / "x.h5"
    with DatasetWriter(path) as writer:
        writer.add(*samples()[0])
    before = path.read_bytes()
    with full_disk(room), pytest.raises(DatasetError, match=r"x\.h5: cannot be written \(File too large\)"):
        with DatasetWriter(path, mode="replace") as writer:
            for number in range(10**6):
                writer.add(*samples((6,), seed=number)[0])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with DatasetWriter(path, mode="append") as writer:
        writer.add(*samples()[1])
    assert len(ForceFieldDataset(path)) == 2


def test_after_a_failure_nothing_more_is_written_and_every_call_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_writer, "_HELD", 1)
    writer = DatasetWriter(tmp_path / "x.h5")
    told = r"x\.h5: cannot be written"
    with full_disk(4096), pytest.raises(DatasetError, match=told):
        for number in range(10**4):
            writer.add(*samples((6,), seed=number)[0])
    for call in (lambda: writer.add(*samples()[0]), writer.save, lambda: writer.__exit__(None, None, None)):
        with pytest.raises(DatasetError, match=told):
            call()
    assert not list(tmp_path.iterdir())
