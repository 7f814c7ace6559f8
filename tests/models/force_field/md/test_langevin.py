"""The bath: its temperature, its noise, its heat."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sparsejax.models.force_field import md
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster

STIFFNESS = 3.0


def _well(parameters, species, positions, cell, neighbors, *, strain):
    return parameters * (positions**2).sum(-1) / 2


def _atom():
    from ase import Atoms

    return Atoms("C", [[0.1, 0.0, 0.0]])


def test_atoms_in_harmonic_wells_have_the_boltzmann_distribution():
    # BAOAB has the exact distribution of positions for harmonic forces, at any time step.
    potential = md.Potential(jnp.asarray(STIFFNESS), _well, 4.0)
    run = md.nvt(
        potential,
        _atom(),
        replicas=2000,
        steps=800,
        timestep=8.0,
        friction=0.02,
        temperature=600.0,
        every=50,
        observers={"places": md.positions},
        skin=0.0,
    )
    settled = run.observed["places"][6:]
    spread = md.BOLTZMANN * 600.0 / STIFFNESS
    assert abs((settled**2).mean() / spread - 1) < 0.02
    assert abs((settled**4).mean() / (3 * spread**2) - 1) < 0.05
    assert run.temperature.shape == (17, 2000)
    assert run.simulation.system.freedom == 3


def test_energy_less_the_heat_of_the_bath_is_conserved():
    run = md.nvt(morse.morse(), cluster(), replicas=2, steps=200, friction=0.05, temperature=600.0, every=10)
    assert np.ptp(run.total, axis=0).min() > 0.1
    assert np.ptp(run.conserved, axis=0).max() < 5e-3


def test_noise_is_that_of_the_seed_and_differs_between_replicas():
    first, again, other = (
        md.nvt(morse.morse(), cluster(0.0), replicas=2, steps=20, seed=seed, every=20) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.potential, again.potential)
    assert np.abs(first.potential[-1] - other.potential[-1]).min() > 1e-4
    assert abs(first.potential[-1, 0] - first.potential[-1, 1]) > 1e-4
