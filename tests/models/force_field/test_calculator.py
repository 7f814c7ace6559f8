"""The calculator of ASE: what it returns, what it keeps, what it grows, what it refuses."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.force_field import ForceField
from sparsejax.models.force_field.structure import as_structure
from tests import golden
from tests.models.force_field import files

ase = pytest.importorskip("ase")


@pytest.fixture(scope="module", autouse=True)
def field(tmp_path_factory):
    """A small network with random parameters in float64, which stays on."""
    state = files.state_dict(layers=1, equivariant=True)
    config = {**files.CONFIG, "num_interactions": 1, "variant": "equivariant", "species": [1, 6, 8]}
    path = files.write(tmp_path_factory.mktemp("field"), files.saved(state, config=config))
    with jax.enable_x64(True):
        yield ForceField.from_checkpoint(sj.load(path, dtype=np.float64), filter="exact")


def _molecule():
    from ase.build import molecule

    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=3)
    return atoms


def _diamond(repeat=1, spacing=6.0):
    from ase.build import bulk

    atoms = bulk("C", "diamond", a=spacing) * repeat
    atoms.rattle(0.06, seed=4)
    return atoms


@pytest.mark.parametrize("system", [_molecule, _diamond])
def test_results_are_those_of_predict(system, field):
    atoms = system()
    atoms.calc = field.calculator()
    expected = field.predict(system())
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-12)
    np.testing.assert_allclose(atoms.get_potential_energies(), expected.atomic_energies, atol=1e-12)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    if atoms.pbc.all():
        np.testing.assert_allclose(atoms.get_stress(), expected.stress, atol=1e-12)


def test_forces_and_stress_are_slopes_of_the_energy_by_ase_s_own_differences(field):
    from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

    atoms = _diamond()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + [[0.01, 0.02, 0], [0, -0.01, 0], [0.01, 0, 0]]), True)
    atoms.calc = field.calculator()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-7)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-8)


def test_results_are_kept_until_something_changes(field, monkeypatch):
    calculator = field.calculator()
    asked = []
    ask = calculator._ask
    monkeypatch.setattr(calculator, "_ask", lambda *args, **kw: asked.append(1) or ask(*args, **kw))
    atoms = _molecule()
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_potential_energies()
    assert len(asked) == 1
    atoms.info["note"] = atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.get_forces()
    assert len(asked) == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert len(asked) == 2
    forces = atoms.get_forces()
    forces[:] = 0
    assert np.abs(atoms.get_forces()).max() > 0


def test_a_list_with_a_skin_is_reused_and_right_all_along_a_path(field, monkeypatch):
    from sparsejax.models.force_field import calculator as module

    made = []
    search = module.edge_list
    monkeypatch.setattr(module, "edge_list", lambda *args, **kw: made.append(1) or search(*args, **kw))
    atoms = _diamond()
    atoms.calc = field.calculator()
    random = np.random.default_rng(0)
    for _ in range(12):
        atoms.positions += random.normal(size=(len(atoms), 3)) * 0.02
        expected = field.predict(atoms.copy())
        assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), abs=1e-11)
        np.testing.assert_allclose(atoms.get_stress(), expected.stress, atol=1e-12)
    assert 1 <= len(made) <= 5
    before = len(made)
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    assert atoms.get_potential_energy() == pytest.approx(float(field.predict(atoms.copy()).energy), abs=1e-11)
    assert len(made) == before + 1


def test_room_grows_and_is_logged(field, caplog):
    lists = field.calculator()._lists
    shapes = []
    with caplog.at_level(logging.INFO, "sparsejax.force_field"):
        for repeat, squeeze in ((1, 1.0), (1, 0.85), ((2, 1, 1), 1.0), (1, 1.0), ((3, 1, 1), 1.0)):
            atoms = _diamond(repeat, 3.6)
            atoms.set_cell(squeeze * atoms.cell, scale_atoms=True)
            lists.make(as_structure(atoms))
            shapes.append(lists.neighbors.senders.shape)
    assert shapes == [(2, 88), (2, 132), (8, 88), (2, 132), (8, 88)]
    assert [record.message for record in caplog.records] == [
        "calculator: room for 132 neighbours per atom instead of 88",
        "calculator: room for 8 atoms beside [2]",
    ]


def test_a_list_is_made_anew_where_other_directions_repeat(field):
    lists, crystal = field.calculator()._lists, as_structure(_diamond())
    lists.make(crystal)
    assert not lists.must_be_made(crystal)
    assert lists.must_be_made(crystal._replace(pbc=np.array([True, True, False])))


def test_averages_over_rotations_are_those_of_predict(field, monkeypatch):
    predict, asked = ForceField.predict, []

    def noted(self, atoms, *, rotation_average=None):
        asked.append(rotation_average)
        return predict(self, atoms, rotation_average=rotation_average)

    monkeypatch.setattr(ForceField, "predict", noted)
    atoms = _molecule()
    atoms.calc = field.calculator(rotation_average=1)
    expected = predict(field, atoms, rotation_average=1)
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), abs=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-12)
    assert asked == [1]  # forces are of the same calculation


def test_a_smaller_cell_in_the_room_of_a_larger_one(field):
    calculator, atoms = field.calculator(), _diamond()
    expected = float(field.predict(atoms).energy)
    calculator._lists.make(as_structure(_diamond((1, 2, 2))))
    for copies in (2, 3):
        crystal = _diamond((copies, 1, 1))
        crystal.positions = (atoms * (copies, 1, 1)).positions
        found = calculator.get_potential_energy(crystal)
        assert found == pytest.approx(copies * expected, abs=1e-11)
        assert calculator.results["forces"].shape == (2 * copies, 3)
    assert calculator._lists._rooms == [8]


def test_stress_is_refused_where_there_is_none(field):
    from ase.calculators.calculator import PropertyNotImplementedError

    molecule, slab = _molecule(), _diamond()
    slab.pbc = (True, True, False)
    for atoms in (molecule, slab):
        atoms.calc = field.calculator()
        with pytest.raises(PropertyNotImplementedError, match="all three directions; set both"):
            atoms.get_stress()
    assert np.isfinite(molecule.get_potential_energy())
    assert "stress" not in molecule.calc.results


def test_a_batch_has_the_results_of_each(field):
    calculator = field.calculator()
    structures = [_molecule(), _diamond()]
    results = calculator.calculate_batch(structures)
    for atoms, found in zip(structures, results, strict=True):
        atoms.calc = calculator
        assert (
            found["energy"] == found["free_energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-11)
        )
        np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-11)
        assert ("stress" in found) == bool(atoms.pbc.all())
    assert calculator.calculate_batch([]) == []


def test_bad_structures_are_told_in_one_line(field):
    from ase import Atoms

    cases = [
        (Atoms(), "atoms: has no atoms"),
        (Atoms("Fe"), "atoms: atom 0 has atomic number 26; this network's table holds 1 to 9"),
        (Atoms("N"), "atoms: holds N; this network was trained on H, C, O only"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "atoms: atom 1 has the z position nan"),
        (Atoms("H2", np.zeros((2, 3))), "atoms: atoms 0 and 1 are on one site"),
        (Atoms("H", pbc=True), "atoms: pbc is set but there is no cell"),
        (Atoms("H", cell=[5, 5, 0], pbc=True), "atoms: its cell has no extent along c"),
    ]
    calculator = field.calculator()
    for atoms, words in cases:
        with pytest.raises(ValueError, match=words):
            calculator.get_potential_energy(atoms)
    atoms = _molecule()
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.positions[2, 1] = np.nan  # an optimiser that went astray, the list being kept
    with pytest.raises(ValueError, match="atom 2 has the y position nan"):
        atoms.get_potential_energy()
    params = jax.tree.map(lambda leaf: leaf * np.nan, field.params)
    with pytest.raises(ValueError, match="no number: atoms are too close for the network's range"):
        dataclasses.replace(field, params=params).calculator().get_potential_energy(_molecule())
    with pytest.raises(ValueError, match="skin must be a number of A from 0"):
        field.calculator(skin=-1.0)


def test_it_serves_optimisers_and_dynamics_of_ase(field):
    from ase import units
    from ase.filters import FrechetCellFilter
    from ase.md.verlet import VelocityVerlet
    from ase.optimize import BFGS

    atoms = _diamond()
    atoms.calc = field.calculator()
    first = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=3)
    assert atoms.get_potential_energy() < first - 1e-6
    atoms = _molecule()
    atoms.calc = field.calculator()
    atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(3, 3)))
    first = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.2 * units.fs).run(10)
    assert abs(atoms.get_total_energy() - first) < 1e-4


def test_one_atom_has_an_energy_and_no_force(field):
    from ase import Atoms

    atoms = Atoms("O", calculator=field.calculator())
    assert np.isfinite(atoms.get_potential_energy())
    np.testing.assert_array_equal(atoms.get_forces(), np.zeros((1, 3)))


@pytest.mark.golden("nve_tiny_ethanol")
def test_ase_dynamics_follows_the_published_run():
    from ase import Atoms, units
    from ase.md.verlet import VelocityVerlet

    recorded = golden.arrays("force_field", "nve_tiny_ethanol")
    ck = sj.load(golden.path("force_field", "tiny_77k.pt"), dtype=np.float64)
    atoms = Atoms(recorded["z"], recorded["f64/positions"][0], masses=recorded["masses"])
    atoms.set_velocities(recorded["f64/velocities"][0])
    atoms.calc = ForceField.from_checkpoint(ck, filter="exact").calculator()
    VelocityVerlet(atoms, 0.5 * units.fs).run(20)
    np.testing.assert_allclose(atoms.positions, recorded["f64/positions"][-1], rtol=0, atol=1e-7)
    np.testing.assert_allclose(atoms.get_velocities(), recorded["f64/velocities"][-1], rtol=0, atol=1e-7)
    assert abs(atoms.get_potential_energy() - recorded["f64/potential_energy"][-1]) < 1e-7
    assert abs(atoms.get_total_energy() - recorded["f64/total_energy"][-1]) < 1e-7
