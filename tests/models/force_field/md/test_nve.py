"""Velocity Verlet: the steps of ASE's, energy conserved to the square of the time step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sparsejax.models.force_field import md
from tests import golden
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster, crystal

CHECKPOINT = Path(__file__).parents[4] / "checkpoints" / "ultra_tiny_gfn2.pt"
OBSERVERS = {"positions": md.positions, "velocities": md.velocities, "forces": md.forces}


@pytest.mark.parametrize("system", [cluster, crystal])
def test_steps_are_those_of_ase(system):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    run = md.nve(morse.morse(), system(), steps=20, timestep=1.0)
    atoms = system()
    atoms.calc = morse.calculator()
    VelocityVerlet(atoms, timestep=units.fs).run(20)
    np.testing.assert_allclose(run.atoms.positions, atoms.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.atoms.get_velocities(), atoms.get_velocities(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.atoms.get_forces(), atoms.get_forces(), rtol=0, atol=1e-11)
    assert abs(run.potential[-1] - atoms.get_potential_energy()) < 1e-11
    assert abs(run.kinetic[-1] - atoms.get_kinetic_energy()) < 1e-12
    if atoms.pbc.all():
        np.testing.assert_allclose(run.atoms.get_stress(), atoms.get_stress(), rtol=0, atol=1e-12)
        found = -atoms.get_stress(include_ideal_gas=True)[:3].mean()
        assert abs(run.pressure[-1] - found) < 1e-12


def test_error_of_the_energy_falls_with_the_square_of_the_time_step():
    wide, fine = (
        md.nve(morse.morse(), cluster(), steps=round(200 / step), timestep=step, every=round(2 / step))
        for step in (1.0, 0.5)
    )
    assert 3.5 < np.ptp(wide.total) / np.ptp(fine.total) < 4.5
    assert np.ptp(fine.total) < 2e-3
    np.testing.assert_array_equal(fine.total, fine.conserved)


def test_momentum_and_angular_momentum_stay():
    run = md.nve(morse.morse(), cluster(0.0), steps=200, temperature=500.0, remove_rotation=True, every=200)
    assert np.abs(run.atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(run.atoms.get_angular_momentum()).max() < 1e-11
    assert float(run.simulation.system.freedom) == 9


def test_records_come_every_so_many_steps_from_step_0():
    run = md.nve(morse.morse(), cluster(), steps=25, every=10, timestep=1.0)
    assert run.step.tolist() == [0, 10, 20]
    assert run.time.tolist() == [0.0, 10.0, 20.0]
    assert run.observed == {}
    assert run.pressure is None and run.volume is None


def test_drift_is_a_slope_per_atom_and_picosecond():
    run = md.nve(morse.morse(), cluster(), steps=25, every=10, timestep=1.0)
    slope = np.polyfit(run.time / 1000, run.conserved, 1)[0]
    assert abs(run.drift - slope / 5) < 1e-9
    one = dataclasses.replace(run, time=run.time[:1], conserved=run.conserved[:1])
    assert np.isnan(one.drift) and one.drift.shape == ()


@pytest.mark.golden("nve_tiny_ethanol")
def test_the_loop_follows_the_published_run():
    from ase import Atoms

    import sparsejax as sj
    from sparsejax.models.force_field import ForceField

    recorded = golden.arrays("force_field", "nve_tiny_ethanol")
    ck = sj.load(golden.path("force_field", "tiny_77k.pt"), dtype=np.float64)
    atoms = Atoms(recorded["z"], recorded["f64/positions"][0], masses=recorded["masses"])
    atoms.set_velocities(recorded["f64/velocities"][0])
    field = ForceField.from_checkpoint(ck, filter="exact")
    run = md.nve(
        field, atoms, steps=20, timestep=float(recorded["timestep_fs"]), every=1, observers=OBSERVERS
    )
    for name, found in (
        ("positions", run.observed["positions"][:, 0]),
        ("velocities", run.observed["velocities"][:, 0]),
        ("potential_energy", run.potential),
        ("kinetic_energy", run.kinetic),
        ("total_energy", run.total),
    ):
        np.testing.assert_allclose(found, recorded[f"f64/{name}"], rtol=0, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(run.observed["forces"][:, 0], recorded["f64/forces"], rtol=0, atol=1e-6)


def test_the_shipped_network_conserves_the_energy_of_ethanol():
    from ase.build import molecule

    import sparsejax as sj
    from sparsejax.models.force_field import ForceField

    # Over 10 ps the slope is below 1e-5 eV/atom/ps; over one, the swing of the energy is seen in it, too.
    field = ForceField.from_checkpoint(sj.load(CHECKPOINT, dtype=np.float64), filter="exact")
    run = md.nve(field, molecule("CH3CH2OH"), replicas=4, steps=2000, timestep=0.5)
    assert run.simulation.state.positions.shape == (4, 9, 3)
    assert np.abs(run.drift).max() < 2e-4
    assert abs(run.drift.mean()) < 5e-5
    assert np.ptp(run.total, axis=0).max() / 9 < 1e-3
    assert np.ptp(run.potential, axis=0).min() / 9 > 1e-2
