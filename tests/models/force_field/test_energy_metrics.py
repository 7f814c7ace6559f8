"""Energy conservation: the published numbers, and the drift per atom that they hide."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field import energy_metrics
from tests import golden


@pytest.mark.golden("metrics")
def test_published_energy_metrics():
    arrays = golden.arrays("force_field", "metrics")
    total, kinetic, potential = arrays["etot"], arrays["ekin"], arrays["epot"]
    line = energy_metrics.linear_drift(arrays["time"], total)
    found = {
        **energy_metrics.energy_drift(total),
        **energy_metrics.energy_fluctuations(total),
        **energy_metrics.energy_exchange(kinetic, potential),
        "ratio": energy_metrics.conservation_ratio(total),
        "ratio_w10": energy_metrics.conservation_ratio(total, window=10),
        **{f"fit_{name}": value for name, value in line.items()},
    }
    expected = {name.removeprefix("energy/"): value for name, value in arrays.items() if "energy/" in name}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-9), name


def test_published_verdict_passes_what_the_drift_per_atom_does_not():
    time = np.linspace(0, 10, 101)
    kinetic = 0.3 + 0.05 * np.sin(60 * time)
    potential = -400 - 0.05 * np.sin(60 * time) + 0.2 * time  # 2 eV in 10 ps: 0.5 % of the energy
    total = kinetic + potential
    assert energy_metrics.conserves_energy(total, kinetic, potential)
    per_atom = energy_metrics.drift_per_atom(time, total, 9)
    assert per_atom == pytest.approx(0.2 / 9, rel=1e-6)
    assert per_atom > 1000 * energy_metrics.PER_ATOM_LIMIT


@pytest.mark.parametrize(
    ("potential", "why"),
    [
        (np.array([-100.0, -100.5, -101.2]), "last frame"),
        (np.array([-100.0, -98.4, -100.0]), "any frame"),
        (np.array([-100.0, -99.95, -99.9]), "kinetic energy rises with the potential one"),
    ],
)
def test_published_verdict_fails_by(potential, why):
    kinetic = np.array([1.0, 1.01, 1.02])
    assert not energy_metrics.conserves_energy(kinetic + potential, kinetic, potential), why


def test_energies_of_zero_have_no_relative_drift_but_crash_nothing():
    assert energy_metrics.energy_drift([0.0, 0.0])["drift_relative"] == 0
    assert energy_metrics.energy_drift([0.0, 1.0])["drift_relative"] == np.inf
    assert energy_metrics.conservation_ratio([-1.0, 1.0]) == 0
    assert np.isnan(energy_metrics.energy_exchange([1.0, 1.0], [1.0, 2.0])["ke_pe_correlation"])


def test_bad_series_are_told_in_one_line():
    with pytest.raises(ValueError, match="total must be a series of at least 2 frames"):
        energy_metrics.energy_drift([1.0])
    with pytest.raises(ValueError, match="one length, not {'kinetic': 2, 'potential': 3}"):
        energy_metrics.energy_exchange([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="time stands still"):
        energy_metrics.linear_drift([1.0, 1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="a window has 1 to 2 frames, not 3"):
        energy_metrics.conservation_ratio([1.0, 2.0], window=3)
    with pytest.raises(ValueError, match="num_atoms must be positive, and is 0"):
        energy_metrics.drift_per_atom([0.0, 1.0], [1.0, 2.0], 0)
