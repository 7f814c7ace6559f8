"""The barostat: the steps of ASE's, its conserved energy, the pressure that it holds."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.force_field import md
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster, crystal


def _npt(atoms, **options):
    return md.npt(morse.morse(), atoms, temperature=400.0, **options)


def test_steps_are_those_of_ase():
    from ase import units
    from ase.md.nose_hoover_chain import IsotropicMTKNPT

    options = {"pressure": 0.05, "period": 20.0, "pressure_period": 60.0}
    simulation = _npt(crystal(), steps=0, timestep=1.0, **options).simulation
    simulation = dataclasses.replace(
        simulation,
        system=simulation.system.replace(freedom=jnp.asarray(96.0)),  # ASE counts the momentum, too
    )
    simulation.advance(10, lambda step, rows: None)
    atoms = crystal()
    atoms.calc = morse.calculator()
    dynamics = IsotropicMTKNPT(
        atoms,
        units.fs,
        temperature_K=400.0,
        pressure_au=0.05,
        tdamp=20 * units.fs,
        pdamp=60 * units.fs,
    )
    before = atoms.get_volume()
    dynamics.run(10)
    assert abs(atoms.get_volume() / before - 1) > 1e-3
    np.testing.assert_allclose(simulation.state.cell, atoms.cell, rtol=0, atol=1e-11)
    np.testing.assert_allclose(simulation.state.positions[0], atoms.positions, rtol=0, atol=1e-10)
    conserved = simulation.integrator.conserved(simulation.state, simulation.system)[0]
    assert abs(conserved - dynamics.get_conserved_energy()) < 1e-9


def test_mean_pressure_is_that_from_outside_and_the_energy_is_conserved():
    run = _npt(
        crystal(), steps=4000, timestep=3.0, pressure=0.02, period=50.0, pressure_period=200.0, every=5
    )
    settled = slice(300, None)
    assert abs(run.pressure[settled].mean() - 0.02) < 2e-3
    assert abs(run.temperature[settled].mean() / 400.0 - 1) < 0.05
    assert np.ptp(run.conserved) < 0.02 * np.ptp(run.total)
    assert run.atoms.get_volume() == pytest.approx(run.volume[-1], rel=1e-12)


def test_a_molecule_has_no_pressure():
    with pytest.raises(ValueError, match="npt needs a cell and periodic boundary conditions in all three"):
        _npt(cluster(), steps=1)
    still = md.nve(morse.morse(), cluster(), steps=0).simulation
    with pytest.raises(ValueError, match="the stress needs a cell that is periodic in all three directions"):
        md.stress(still.state, still.system)


def test_pressures_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"pressure must be a number of eV/A\^3, not nan"):
        _npt(crystal(), steps=1, pressure=float("nan"))
