"""`sparsejax screen`: from files to files, and what a user gets with bad input."""

from __future__ import annotations

import pytest

from sparsejax.models.force_field.dataset import ForceFieldDataset
from sparsejax.models.force_field.dataset_sources import labelled_structures
from tests.command_line import refused, run
from tests.models.force_field import files

pytest.importorskip("ase")
pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint and structures."""
    from ase import Atoms
    from ase.build import molecule
    from ase.io import write

    folder = tmp_path_factory.mktemp("screen")
    state = files.state_dict(layers=1, equivariant=True)
    config = {**files.CONFIG, "num_interactions": 1, "variant": "equivariant", "species": [1, 6, 8]}
    files.write(folder, files.saved(state, config=config), "net.pt")
    waters = [molecule("H2O") for _ in range(3)]
    for number, water in enumerate(waters):
        water.rattle(0.05, seed=number)
    write(folder / "waters.extxyz", waters)
    write(folder / "fluorine.extxyz", [*waters, Atoms("F")])
    lines = (folder / "waters.extxyz").read_text().splitlines()
    lines[7] = "O 0.0 nowhere 0.1"
    (folder / "broken.extxyz").write_text("\n".join(lines) + "\n")
    return folder


def _arguments(folder, structures, out, *further):
    given = ("--checkpoint", folder / "net.pt", "--structures", folder / structures, "--out", out)
    return ("screen", *given, "--filter", "exact", *further)


def test_a_file_is_screened_into_either_format(folder, tmp_path, capsys):
    assert run(_arguments(folder, "waters.extxyz", tmp_path / "found.h5")) == 0
    told = capsys.readouterr().out
    assert "3 structures in" in told and "1 devices, 1 processes" in told
    assert "energy per atom: lowest" in told and f"results: {tmp_path / 'found.h5'}" in told
    assert run(_arguments(folder, "waters.extxyz", tmp_path / "found.extxyz", "--quiet")) == 0
    assert capsys.readouterr().out == ""
    with ForceFieldDataset(tmp_path / "found.h5") as dataset:
        stored = list(dataset)
    for own, other in zip(stored, labelled_structures(tmp_path / "found.extxyz"), strict=True):
        assert own.energy == pytest.approx(other.energy, abs=1e-7)
        assert own.forces == pytest.approx(other.forces, abs=1e-7)
        assert own.structure.positions == pytest.approx(other.structure.positions, abs=1e-7)
    assert len({one.energy for one in stored}) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("fluorine.extxyz", "found.h5"), "structure 3: holds F; this network was trained on H, C, O only"),
        (("broken.extxyz", "found.h5"), "to float: 'nowhere'); 1 structures before it could be read"),
        (("none.extxyz", "found.h5"), "none.extxyz: does not exist"),
        (("waters.extxyz", "found.csv"), "found.csv: results are written as .h5 or .extxyz"),
        (("waters.extxyz", "found.h5", "--devices", 99), "99 devices are asked for"),
        (("waters.extxyz", "found.h5", "--num-processes", 2), "with --distributed"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_written(folder, tmp_path, capsys, given, message):
    structures, name, *further = given
    assert message in refused(capsys, *_arguments(folder, structures, tmp_path / name, *further))
    assert not list(tmp_path.iterdir())
