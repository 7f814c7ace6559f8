"""The chain: the steps of ASE's, its conserved energy, its temperature."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field import md
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster


def _nvt(atoms, **options):
    return md.nvt(morse.morse(), atoms, thermostat="nose_hoover", temperature=400.0, **options)


def test_steps_are_those_of_ase():
    from ase import units
    from ase.md.nose_hoover_chain import NoseHooverChainNVT

    simulation = _nvt(cluster(), steps=0, timestep=1.0, period=20.0).simulation
    simulation = dataclasses.replace(
        simulation,
        system=simulation.system.replace(freedom=jnp.asarray(15.0)),  # ASE counts the momentum, too
    )
    records = []
    simulation.advance(40, lambda step, rows: records.append(rows))
    atoms = cluster()
    atoms.calc = morse.calculator()
    dynamics = NoseHooverChainNVT(atoms, units.fs, temperature_K=400.0, tdamp=20 * units.fs)
    dynamics.run(40)
    np.testing.assert_allclose(simulation.state.positions[0], atoms.positions, rtol=0, atol=1e-11)
    conserved = simulation.integrator.conserved(simulation.state, simulation.system)[0]
    assert abs(conserved - dynamics.get_conserved_energy()) < 1e-11


def test_error_of_the_conserved_energy_falls_with_the_square_of_the_time_step():
    wide, fine = (
        _nvt(cluster(), steps=round(200 / step), timestep=step, period=40.0, every=round(2 / step))
        for step in (1.0, 0.5)
    )
    assert 3.3 < np.ptp(wide.conserved) / np.ptp(fine.conserved) < 4.7
    assert np.ptp(fine.total) > 20 * np.ptp(fine.conserved)


def test_temperature_has_the_mean_and_the_spread_of_the_bath():
    run = _nvt(cluster(0.0), steps=60_000, timestep=2.0, period=40.0, every=20, seed=5)
    settled = run.temperature[100:]
    assert float(run.simulation.system.freedom) == 12
    assert abs(settled.mean() / 400.0 - 1) < 0.03
    # Fluctuations of the kinetic energy in the canonical ensemble: 2 / freedom.
    assert abs(settled.var() / settled.mean() ** 2 * 12 / 2 - 1) < 0.2
