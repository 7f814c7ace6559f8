"""`sparsejax validate` and `sparsejax benchmark`, on the shipped force field."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax import cli
from sparsejax.training.recipes.force_field import checks
from sparsejax.training.recipes.force_field.checks_settings import ValidateSettings

SHIPPED = str(Path(__file__).resolve().parents[4] / "checkpoints" / "ultra_tiny_gfn2.pt")


def test_validate_tells_and_writes_the_summary(tmp_path, capsys):
    arguments = ["--molecule", "H2O", "--steps", "40", "--output", str(tmp_path / "new/summary.json")]
    cli.main(["validate", "--checkpoint", SHIPPED, *arguments])
    summary = json.loads((tmp_path / "new/summary.json").read_text())
    assert summary["molecule"] == "H2O"
    assert summary["n_steps"] == 40
    assert summary["total_time_ps"] == pytest.approx(0.02)
    assert abs(summary["energy_drift_pct"]) < 0.1
    assert 50 < summary["avg_temperature"] < 600
    assert f"energy_drift_pct: {summary['energy_drift_pct']:.6g}" in capsys.readouterr().out


def test_a_molecule_of_a_file_is_relaxed_first(tmp_path, monkeypatch):
    from ase.build import molecule

    water, relaxed, seen = molecule("H2O"), molecule("H2O"), []
    water.write(tmp_path / "water.xyz")

    def nve(field, atoms, **options):
        seen.append(atoms)
        raise ValueError("stop")

    minimized = SimpleNamespace(atoms=relaxed)
    monkeypatch.setattr(checks.md, "minimize", lambda field, atoms: seen.append(atoms) or minimized)
    monkeypatch.setattr(checks.md, "nve", nve)
    with pytest.raises(ValueError, match="stop"):
        checks.validate(ValidateSettings(Path(SHIPPED), str(tmp_path / "water.xyz"), relax=True))
    np.testing.assert_allclose(seen[0].positions, water.positions, atol=1e-6)
    assert seen[1] is relaxed


def test_benchmark_times_moving_atoms(capsys):
    cli.main(["benchmark", "--checkpoint", SHIPPED, "--warmup", "1", "--iterations", "3"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["molecule", "atoms"]
    assert [row.split()[:2] for row in rows] == [["H2O", "3"], ["CH4", "5"], ["C2H6", "8"], ["C6H6", "12"]]
    assert all(0.01 < float(row.split()[2]) < 1e4 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["validate", "--checkpoint", SHIPPED, "--molecule", "unobtainium"], "unobtainium"),
        (["validate", "--checkpoint", SHIPPED, "--molecule", "SiH4", "--steps", "1"], "Si"),
        (["validate", "--checkpoint", SHIPPED, "--output", f"{SHIPPED}/x.json"], "is a file; give a folder"),
        (["benchmark", "--checkpoint", SHIPPED, "--iterations", "0"], "--iterations"),
        (["benchmark", "--checkpoint", "nothing.pt"], "nothing.pt"),
    ],
)
def test_bad_input_is_one_line(arguments, word, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert word in said
    assert said.count("\n") == 1
