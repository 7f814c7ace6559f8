"""The summary of a run at constant energy: the published run, and what it says beyond."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.nve_summary import RecordedRun, nve_summary
from tests import golden

SERIES = ("time", "positions", "velocities", "forces", "potential_energy", "kinetic_energy", "temperature")


@pytest.mark.golden("nve_tiny_ethanol")
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_published_run(precision):
    arrays = golden.arrays("force_field", "nve_tiny_ethanol")
    run = RecordedRun(*(arrays[f"{precision}/{name}"] for name in SERIES))
    summary = nve_summary(run, wall_time_s=1.5)
    expected = {
        "energy_drift_pct": "drift_pct",
        "max_drift_pct": "max_drift_pct",
        "conservation_ratio": "conservation_ratio",
        "ke_pe_corr": "ke_pe_corr",
        "drift_rate": "drift_rate",
    }
    for name, key in expected.items():
        assert summary[name] == pytest.approx(float(arrays[f"{precision}/{key}"]), rel=1e-9), name
    assert summary["passed"] == bool(arrays[f"{precision}/passed"])
    assert (summary["n_steps"], summary["wall_time_s"]) == (20, 1.5)
    assert summary["timestep_fs"] == pytest.approx(float(arrays["timestep_fs"]))
    assert summary["total_time_ps"] == pytest.approx(0.01)
    assert summary["final_energy"] == pytest.approx(float(arrays[f"{precision}/total_energy"][-1]))
    assert summary["avg_temperature"] == pytest.approx(arrays[f"{precision}/temperature"].mean())
    assert summary["drift_per_atom"] == pytest.approx(summary["drift_rate"] / 9)
    assert summary["passed_per_atom"] is False  # the imported network cannot conserve: 4e-3 eV/atom/ps


def run_of(drift):
    time = np.arange(11) * 0.001
    kinetic = 1 + 0.1 * np.cos(1000 * time)
    positions = np.zeros((11, 4, 3))
    positions[5, 2, 1] = 0.7
    potential = -10 + drift * time - (kinetic - 1)
    return RecordedRun(time, positions, positions, positions, potential, kinetic, 300 * kinetic)


def test_verdict_per_atom():
    assert nve_summary(run_of(2e-5))["passed_per_atom"]
    summary = nve_summary(run_of(4e-3))
    assert summary["passed"] and not summary["passed_per_atom"]
    assert summary["drift_per_atom"] == pytest.approx(1e-3, rel=1e-6)
    assert summary["max_temperature"] == pytest.approx(330)
    assert summary["max_displacement"] == 0.7
    assert summary["wall_time_s"] is None


def test_series_of_different_lengths_are_told():
    run = run_of(0.0)
    with pytest.raises(ValueError, match="one length, not .*'temperature': 10"):
        nve_summary(run._replace(temperature=run.temperature[1:]))
