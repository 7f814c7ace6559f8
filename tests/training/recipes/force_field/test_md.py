"""`sparsejax md`: from files to files, and what a user gets with bad input."""

from __future__ import annotations

import csv
import dataclasses
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax.models.force_field import md
from sparsejax.training.recipes.force_field import md as force_field_md
from sparsejax.training.recipes.force_field import md_log
from sparsejax.training.recipes.force_field.md import summary
from sparsejax.training.recipes.force_field.md_settings import MdSettings
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


def test_a_row_that_a_kill_cut_is_not_kept(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,energy\n0,1\n5,2\n1")
    assert md_log._kept(path, ["step", "energy"], 10) == [["0", "1"], ["5", "2"]]
    assert md_log._kept(path, ["step", "energy"], 4) == [["0", "1"]]


def _run(**found):
    """The records of a run, in which nothing was run."""
    few = {
        "step": np.arange(3) * 5,
        "time": np.arange(3) * 2.5,
        "kinetic": np.ones(3),
        "conserved": np.ones(3),
    }
    few |= {"potential": np.array([-1.0, -2.0, -3.25]), "temperature": np.array([290.0, 300.0, 310.0])}
    few |= {"pressure": None, "volume": None, "observed": {}, "atoms": None, "finished": False}
    return md.Run(**{**few, **found})


def test_the_last_line_tells_where_a_minimisation_stopped_and_the_pressure():
    settings = MdSettings(Path("net.pt"), Path("water.xyz"), ensemble="minimize", fmax=0.05)
    forces = np.array([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]]) / 100
    state = SimpleNamespace(forces=forces, positions=forces)
    simulation = SimpleNamespace(step=1200, state=state)
    arrived = "minimize: arrived after 1,200 steps: -3.250000 eV, largest force 0.05 eV/A"
    assert summary(settings, _run(simulation=simulation, finished=True), 1.0) == [arrived]
    (line,) = summary(settings, _run(simulation=simulation), 1.0)
    assert line.startswith("minimize: did not arrive at 0.05 eV/A after 1,200 steps: ")
    pressed = _run(simulation=simulation, pressure=np.array([1.0, 2.0, 3.0]) * md.GPA)
    (line,) = summary(dataclasses.replace(settings, ensemble="npt"), pressed, 2.0)
    assert line.startswith("npt: 1,200 steps of 0.5 fs in 2.0 s, mean temperature 300.0 K, drift ")
    assert line.endswith(", mean pressure 2.000 GPa")


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
        ({"ensemble": "nve", "timestep": -1}, "timestep must be a positive number, not -1.0"),
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
