"""`sparsejax md`: from files to files, and what a user gets with bad input."""

from __future__ import annotations

import csv
from contextlib import contextmanager

import pytest

from sparsejax.training.recipes.force_field import md as force_field_md
from tests.command_line import refused, run
from tests.models.force_field import files

pytest.importorskip("ase")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint and structures."""
    from ase import Atoms
    from ase.build import molecule

    folder = tmp_path_factory.mktemp("md")
    state = files.state_dict(layers=1, equivariant=True)
    config = {**files.CONFIG, "num_interactions": 1, "variant": "equivariant", "species": [1, 6, 8]}
    files.write(folder, files.saved(state, config=config), "net.pt")
    molecule("H2O").write(folder / "water.xyz")
    Atoms("F").write(folder / "fluorine.xyz")
    (folder / "empty.xyz").write_text("")
    (folder / "text.xyz").write_text("no structure\nat all\n")
    return folder


def _arguments(folder, **options):
    options = {
        "checkpoint": folder / "net.pt",
        "structure": folder / "water.xyz",
        "filter": "exact",
        **options,
    }
    words = ["md"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", value]
    return words


def test_a_run_and_its_continuation(folder, tmp_path, capsys):
    from ase.io import read

    options = {
        "ensemble": "nvt",
        "every": 5,
        "timestep": 0.25,
        "out": tmp_path / "run.extxyz",
        "log": tmp_path / "run.csv",
        "restart": tmp_path / "state",
    }
    assert run(_arguments(folder, steps=10, **options)) == 0
    first = capsys.readouterr().out
    assert "nvt, 3 atoms: step 10 of 10, " in first
    assert "nvt: 10 steps of 0.25 fs in" in first and "mean temperature" in first
    assert run(_arguments(folder, steps=20, resume=True, quiet=True, **options)) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("nvt: 20 steps of 0.25 fs")
    assert told[1:] == [f"trajectory: {tmp_path / 'run.extxyz'}", *told[2:]]
    frames = read(tmp_path / "run.extxyz", ":")
    assert [atoms.info["step"] for atoms in frames] == [0, 5, 10, 15, 20]
    with (tmp_path / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 5, 10, 15, 20]
    assert float(rows[-1]["potential"]) == pytest.approx(frames[-1].get_potential_energy(), abs=1e-5)
    assert run(_arguments(folder, steps=30, **options)) == 1
    assert "holds a run of 20 steps" in capsys.readouterr().err


def test_a_killed_run_leaves_its_log_and_goes_on_without_gaps(folder, tmp_path, capsys, monkeypatch):
    class Killed(BaseException):
        pass

    @contextmanager
    def kill(*_, **__):
        def update(step, words):
            if step > 10:
                raise Killed

        yield update

    log = tmp_path / "new" / "run.csv"
    options = {"every": 5, "timestep": 0.25, "log": log, "restart": tmp_path / "state"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(force_field_md, "shown_progress", kill)
        run(_arguments(folder, steps=30, save_every=10, **options))
    assert [row.split(",")[0] for row in log.read_text().splitlines()] == ["step", *map(str, range(0, 21, 5))]
    before = log.read_bytes()
    assert run(_arguments(folder, steps=30, **options)) == 1
    assert log.read_bytes() == before
    log.write_bytes(before + b"2")
    capsys.readouterr()
    assert run(_arguments(folder, steps=30, resume=True, quiet=True, **options)) == 0
    lines = log.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, range(0, 31, 5))]
    for text, words in (
        (lines[0].replace("kinetic", "k"), "its columns"),
        (f"{lines[0]}\nx,0,0,0,0,0", "'x' in"),
    ):
        log.write_text(f"{text}\n")
        capsys.readouterr()
        told = refused(capsys, *_arguments(folder, steps=40, resume=True, quiet=True, **options))
        assert "run.csv: " in told and words in told
        assert log.read_text() == f"{text}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"structure": "nowhere.xyz"},
            "nowhere.xyz: there is no such file; give a structure with --structure",
        ),
        ({"structure": "empty.xyz"}, "empty.xyz: cannot be read as a structure"),
        ({"structure": "text.xyz"}, "text.xyz: cannot be read as a structure"),
        ({"structure": "fluorine.xyz"}, "atoms: holds F; this network was trained on H, C, O only"),
        ({"checkpoint": "nowhere.pt"}, "nowhere.pt"),
        ({"ensemble": "minimize", "fmax": 0}, "fmax must be a positive number, not 0.0"),
        ({"ensemble": "nose-hoover", "period": -1}, "period must be a positive number, not -1.0"),
        ({"ensemble": "npt"}, "npt needs a cell and periodic boundary conditions in all three directions"),
        ({"timestep": -1}, "timestep must be a positive number, not -1.0"),
        ({"temperature": -5}, "temperature must be a number of K from 0, not -5.0"),
        ({"out": "run.pdb"}, "run.pdb: trajectories are written to .traj, .extxyz, .xyz files"),
        ({"log": "."}, ".: is a folder; give a file with --log"),
        ({"log": "text.xyz/run.csv"}, "text.xyz: is a file; give a folder with --log"),
        ({"resume": True}, "resume=True needs restart=FOLDER"),
        ({"replicas": 0}, "replicas=0"),
    ],
)
def test_bad_input_is_told_in_one_line(folder, options, words, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert run(_arguments(folder, steps=1, quiet=True, **options)) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsejax: ") and error.count("\n") == 1
    assert words in error


def test_wrong_usage_has_its_own_exit_code(folder, capsys):
    assert run(_arguments(folder, ensemble="nvp")) == 2
    assert "nvp" in capsys.readouterr().err
