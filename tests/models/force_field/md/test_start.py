"""What a run starts from: velocities, replicas, and what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.force_field import md
from sparsejax.models.force_field.md.start import boltzmann_velocities, read_start, rotational_freedoms
from sparsejax.models.force_field.structure import as_structure
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster, crystal


def test_velocities_have_the_temperature_and_no_momentum():
    masses, places = np.linspace(1.0, 30.0, 20), np.random.default_rng(0).normal(size=(500, 20, 3))
    velocities = boltzmann_velocities(jax.random.key(1), masses, 300.0, places, remove_rotation=True)
    momentum = np.einsum("a,gai->gi", masses, velocities)
    arms = places - np.einsum("a,gai->gi", masses, places)[:, None] / masses.sum()
    turning = np.einsum("a,gai->gi", masses, np.cross(arms, velocities))
    assert np.abs(momentum).max() < 1e-10 and np.abs(turning).max() < 1e-10
    doubled = np.einsum("a,gai->g", masses, velocities**2)
    assert abs(doubled.mean() / (54 * md.BOLTZMANN * 300.0) - 1) < 0.02


def test_a_replica_has_the_velocities_that_it_would_have_among_fewer():
    masses, places = np.ones(4), np.zeros((6, 4, 3))
    many = boltzmann_velocities(jax.random.key(1), masses, 300.0, places)
    few = boltzmann_velocities(jax.random.key(1), masses, 300.0, places[:2])
    np.testing.assert_array_equal(many[:2], few)
    assert np.abs(many[0] - many[1]).max() > 0.01


@pytest.mark.parametrize(
    ("places", "ways"),
    [
        ([[0, 0, 0]], 0),
        ([[0, 0, 0], [0, 0, 1.2]], 2),
        ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], 2),
        ([[0, 0, 0], [0, 0, 1], [0, 1, 0]], 3),
    ],
)
def test_ways_to_turn_a_molecule(places, ways):
    assert rotational_freedoms(np.ones(len(places)), np.array(places, float)) == ways


def test_units_are_those_of_ase():
    from ase import units

    assert (units.fs, units.kB, units.GPa) == (md.FEMTOSECOND, md.BOLTZMANN, md.GPA)


def test_atoms_keep_the_velocities_that_they_carry():
    atoms = cluster()
    kept, drawn = (md.nve(morse.morse(), atoms, steps=0, draw_velocities=draw) for draw in (None, True))
    np.testing.assert_allclose(kept.atoms.get_velocities(), atoms.get_velocities(), atol=1e-8)
    assert np.abs(drawn.atoms.get_velocities() - atoms.get_velocities()).max() > 1e-3
    assert kept.step.tolist() == [0]


def test_bad_starts_are_told_in_one_line():
    with pytest.raises(ValueError, match="structure 1 has other atoms than structure 0"):
        read_start([cluster(), crystal()], None)
    with pytest.raises(ValueError, match="run crystals one by one"):
        read_start(crystal(), 2)
    with pytest.raises(ValueError, match="there are no structures"):
        read_start([], None)
    with pytest.raises(ValueError, match="replicas=0"):
        read_start(cluster(), 0)
    with pytest.raises(ValueError, match="constraints"):
        from ase.constraints import FixAtoms

        atoms = cluster()
        atoms.set_constraint(FixAtoms([0]))
        read_start(atoms, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timestep": 0.0}, "timestep must be a positive number"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"every": 0}, "every must be 1 or more"),
        ({"skin": -1.0}, "skin must be a number of A from 0"),
        ({"temperature": float("nan")}, "temperature must be a number of K"),
        ({"observers": {"kinetic": md.positions}}, "this name is taken"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"resume": True}, "resume=True needs restart=FOLDER"),
        ({"trajectory": "run.pdb"}, "are written to .traj, .extxyz, .xyz files"),
    ],
)
def test_bad_options_are_told_in_one_line(options, words):
    with pytest.raises(ValueError, match=words):
        md.nve(morse.morse(), cluster(), **{"steps": 1, **options})


def test_degrees_of_freedom_are_those_that_can_move():
    flying = cluster()
    flying.set_velocities(flying.get_velocities() + [0.1, 0, 0])
    for atoms, freedom in ((cluster(), 12), (flying, 15)):
        assert float(md.nve(morse.morse(), atoms, steps=0).simulation.system.freedom) == freedom


def test_bad_baths_are_told_in_one_line():
    with pytest.raises(ValueError, match="no thermostat 'ice'"):
        md.nvt(morse.morse(), cluster(), steps=1, thermostat="ice")
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        md.nvt(morse.morse(), cluster(), steps=1, temperature=0.0)
    with pytest.raises(TypeError, match="no option 'colour'"):
        md.nve(morse.morse(), cluster(), steps=1, colour="red")


def test_double_precision_has_to_be_switched_on():
    with jax.enable_x64(False), pytest.raises(ValueError, match="dtype=float64 needs jax.config.update"):
        md.nve(morse.morse(), cluster(), steps=1, dtype="float64")


def test_structures_have_the_masses_of_their_elements():
    atoms = cluster()
    atoms.set_masses([13.0] * 5)
    assert read_start(atoms, None).masses.tolist() == [13.0] * 5
    assert read_start(as_structure(atoms), None).masses == pytest.approx([12.011] * 5)


def test_positions_that_are_no_numbers_are_refused():
    atoms = cluster()
    atoms.positions[2, 1] = np.nan
    with pytest.raises(ValueError, match="atom 2 has the y position nan"):
        md.nve(morse.morse(), atoms, steps=1)
