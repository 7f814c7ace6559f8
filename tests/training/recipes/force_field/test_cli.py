"""``sparsejax train force-field`` and ``sparsejax label``: published flags, one-line errors, output."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsejax.training.recipes.force_field import recipe
from tests.command_line import refused, run
from tests.training.recipes.runs import parsed_settings

pytest.importorskip("ase")
pytest.importorskip("h5py")


def _parsed(monkeypatch, *arguments):
    return parsed_settings(monkeypatch, recipe, "force-field", *arguments)


def test_published_flags_and_defaults_are_kept(monkeypatch, capsys):
    given = _parsed(monkeypatch, "--dataset", "data.h5", "--checkpoint-dir", "run")
    published = {
        "data": Path("data.h5"),
        "checkpoint_dir": Path("run"),
        "hidden_dim": 128,
        "num_interactions": 3,
        "num_rbf": 20,
        "cutoff": 5.0,
        "epochs": 100,
        "batch_size": 32,
        "lr": 1e-3,
        "weight_decay": 1e-5,
        "grad_clip": 1.0,
        "force_weight": 100.0,
        "stress_weight": 0.1,
        "angular_weight": 10.0,
        "huber_delta": 1.0,
        "early_stopping_patience": 20,
        "val_interval": 1,
        "log_interval": 10,
        "train_ratio": 0.9,
        "seed": 42,
    }
    assert {name: getattr(given, name) for name in published} == published
    for dash in ("-", "_"):
        arguments = (
            f"--data x --checkpoint{dash}dir y --hidden{dash}dim 32 --num{dash}interactions 2 "
            f"--num{dash}rbf 10 --batch{dash}size 8 --epochs 3 --lr 5e-4 --cutoff 4 --resume"
        )
        given = _parsed(monkeypatch, *arguments.split())
        sizes = (given.hidden_dim, given.num_interactions, given.num_rbf, given.batch_size, given.epochs)
        assert (*sizes, given.lr, given.cutoff, given.resume) == (32, 2, 10, 8, 3, 5e-4, 4.0, True)
    capsys.readouterr()
    assert run(["train", "force-field", "--data", "x"]) == 2
    assert "--checkpoint-dir" in capsys.readouterr().err


def test_structures_are_labelled_from_file_to_file(tmp_path, capsys):
    from ase import Atoms
    from ase.calculators.emt import EMT
    from ase.io import write

    from sparsejax.models.force_field.dataset import ForceFieldDataset
    from sparsejax.models.force_field.teachers import label_one

    molecules = [Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), Atoms("Xe")]
    write(tmp_path / "some.extxyz", molecules)
    out = tmp_path / "some.h5"
    command = ("label", "--structures", tmp_path / "some.extxyz", "--out", out, "--teacher")
    assert "no teacher is called 'gfn3'" in refused(capsys, *command, "gfn3")
    assert "no module named 'nothing'" in refused(capsys, *command, "nothing:EMT").lower()
    given = (*command, "ase.calculators.emt:EMT", "--rattle", 3, "--processes", 1, "--seed", 5)
    for _ in range(2):  # the second time it is there
        assert run(given) == 0
        told = capsys.readouterr().out
        assert f"{out}: 3 labelled structures, 3 left out" in told
        assert "left out: structure 3: NotImplementedError: No EMT-potential for Xe" in told
    with ForceFieldDataset(out) as dataset:
        first = dataset[0]
    assert first.energy == label_one(first.structure, EMT()).energy
    assert "exists and holds other labels" in refused(capsys, *given[:-1], 6)
    missing = ("label", "--structures", tmp_path / "none.xyz", "--out", out, "--teacher", "gfn2")
    assert "none.xyz: does not exist" in refused(capsys, *missing)
