"""What a force field says of structures, on small random networks."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.checkpoint import Checkpoint
from sparsejax.models.force_field import ForceField, ForceFieldConfig, StudentForceField
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.inputs import example_graph
from sparsejax.models.force_field.neighbors import all_pairs
from sparsejax.models.force_field.packing import BLOCKS, in_blocks, pack
from sparsejax.models.force_field.prediction import (
    energy_of_rows,
    predict_graph,
    predict_rows,
    sums_of_structures,
)
from sparsejax.models.force_field.rotations import rotated, rotations
from sparsejax.models.force_field.structure import Structure
from sparsejax.models.force_field.tables import choose_filters
from tests.compilations import compilations

OPEN = np.zeros(3, bool)
SIZES = {"hidden_dim": 8, "num_interactions": 2, "num_rbf": 6, "cutoff": 4.0, "max_z": 9}


@cache
def checkpoint(variant: str, **fields) -> Checkpoint:
    config = ForceFieldConfig(**{**SIZES, **fields}, variant=variant)
    with jax.enable_x64(False):  # whichever test comes first
        params = jax.jit(StudentForceField(config).init)(jax.random.key(1), example_graph(config))["params"]
    return Checkpoint("force_field", variant, config, params)


def field(variant: str = "equivariant", kind: str = "exact", **fields) -> ForceField:
    return ForceField.from_checkpoint(checkpoint(variant, **fields), filter=kind)


def in_float64(one: ForceField) -> ForceField:
    return dataclasses.replace(one, params=jax.tree.map(lambda leaf: leaf.astype("float64"), one.params))


def molecule(atoms: int, seed: int = 0) -> Structure:
    """Atoms about 1.3 A apart."""
    draws = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms]
    species = draws.choice([1, 6, 7, 8], atoms).astype(np.int32)
    return Structure(species, 1.3 * grid + draws.normal(size=(atoms, 3)) * 0.1, None, OPEN)


METHANE = Structure(
    np.array([6, 1, 1, 1, 1], np.int32),
    0.63 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float),
    None,
    OPEN,
)


def crystal(seed: int = 0) -> Structure:
    cell = np.array([[2.9, 0, 0], [0.4, 3.1, 0], [-0.3, 0.2, 3.3]])
    return Structure(
        np.array([6, 8], np.int32), np.array([[0.1, 0, 0], [1.4, 1.5, 1.7]]), cell, np.ones(3, bool)
    )


def test_equivariant_networks_turn_with_the_molecule_and_cartesian_ones_do_not():
    turns = rotations(3)
    spread = {}
    for variant in ("equivariant", "cartesian"):
        chosen = field(variant)
        first, *others = chosen.predict([rotated(molecule(8), turn) for turn in (np.eye(3), *turns)])
        energies = [abs(one.energy - first.energy) for one in others]
        forces = [
            np.abs(one.forces @ turn - first.forces).max() for one, turn in zip(others, turns, strict=True)
        ]
        spread[variant] = max(energies), max(forces)
    assert max(spread["equivariant"]) < 2e-5
    assert min(spread["cartesian"]) > 1e-3


def test_rotation_average_is_the_mean_of_turned_predictions():
    chosen, turns = field("cartesian"), rotations("cube")
    average = chosen.predict(crystal(), rotation_average="cube")
    turned = chosen.predict([rotated(crystal(), turn) for turn in turns])
    energies = [one.energy for one in turned]
    assert average.energy == pytest.approx(np.mean(energies), abs=1e-5)
    assert average.energy_spread == pytest.approx(np.std(energies), abs=1e-5)
    assert average.energy_spread > 1e-4
    forces = np.mean([one.forces @ turn for one, turn in zip(turned, turns, strict=True)], 0)
    np.testing.assert_allclose(average.forces, forces, atol=1e-5)
    # The mean over a cube's rotations is invariant under them, stress and all.
    again = chosen.predict(rotated(crystal(), turns[5]), rotation_average="cube")
    assert again.energy == pytest.approx(average.energy, abs=1e-5)


def test_the_energy_of_equivariant_networks_vanishes_smoothly_at_the_cutoff():
    def pair(distance):
        return Structure(np.array([6, 8], np.int32), np.array([[0, 0, 0], [0, 0, distance]]), None, OPEN)

    jumps = {}
    for variant in ("equivariant", "cartesian"):
        ck = checkpoint(variant)
        message = ck.params["interaction_0"]["message"]
        biased = {**message, "filter": {**message["filter"], "bias": message["filter"]["bias"] + 0.3}}
        first = {**ck.params["interaction_0"], "message": biased}  # as training leaves it
        trained = ck.replace(params={**ck.params, "interaction_0": first})
        chosen = ForceField.from_checkpoint(trained, filter="exact")
        inside, outside = chosen.predict([pair(3.9999), pair(4.0001)])
        jumps[variant] = abs(inside.energy - outside.energy)
    assert jumps["equivariant"] < 1e-5
    assert jumps["cartesian"] > 1e-3  # the published filter is that of its bias at the cutoff


@pytest.mark.parametrize("variant", ["equivariant", "cartesian"])
def test_forces_and_stress_are_derivatives_of_the_energy(variant):
    with jax.enable_x64(True):
        chosen, structure, step = in_float64(field(variant)), crystal(), 1e-5
        found = chosen.predict(structure)
        moved = []
        for atom, axis in ((0, 0), (1, 2)):
            for sign in (1, -1):
                positions = structure.positions.copy()
                positions[atom, axis] += sign * step
                moved.append(structure._replace(positions=positions))
        strained = []
        for row, column in ((0, 0), (1, 2)):
            for sign in (1, -1):
                matrix = np.eye(3)
                matrix[row, column] += sign * step / 2
                matrix[column, row] += sign * step / 2
                positions, cell = structure.positions @ matrix, structure.cell @ matrix
                strained.append(structure._replace(positions=positions, cell=cell))
        energies = [one.energy for one in chosen.predict([*moved, *strained])]
    slopes = (np.array(energies[::2]) - energies[1::2]) / (2 * step)
    volume = np.linalg.det(structure.cell)
    np.testing.assert_allclose(slopes[:2], [-found.forces[0, 0], -found.forces[1, 2]], atol=1e-8)
    np.testing.assert_allclose(slopes[2:] / volume, [found.stress[0], found.stress[3]], atol=1e-8)
    assert np.abs(found.stress).max() > 1e-3


def test_hessian():
    """Symmetric, translation costs nothing, equal to differences of forces."""
    with jax.enable_x64(True):
        structure, step = molecule(4), 1e-5
        chosen = in_float64(field())
        found = chosen.hessian(structure)
        direction = np.random.default_rng(0).normal(size=(4, 3))
        product = chosen.hessian_vector_product(structure, direction)
        moved = [structure.positions + sign * step * direction for sign in (1, -1)]
        ahead, behind = (
            one.forces for one in chosen.predict([structure._replace(positions=where) for where in moved])
        )
    np.testing.assert_allclose(found, found.transpose(2, 3, 0, 1), atol=1e-10)
    np.testing.assert_allclose(found.sum(2), 0, atol=1e-10)
    np.testing.assert_allclose(np.einsum("iajb,jb->ia", found, direction), product, atol=1e-10)
    np.testing.assert_allclose(product, (behind - ahead) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("variant", ["equivariant", "cartesian"])
def test_derivatives_of_second_order_are_finite_where_norms_are_zero(variant):
    """Symmetric methane, an isolated atom, padded atoms, and two atoms on one site."""
    site = Structure(np.array([6, 6], np.int32), np.zeros((2, 3)), None, OPEN)
    lone = Structure(np.array([8], np.int32), np.zeros((1, 3)), None, OPEN)
    packed = in_blocks([METHANE, lone, site], 8)
    config, params = checkpoint(variant).config, checkpoint(variant).params

    def size_of_forces(params, positions):
        energy = lambda where: energy_of_rows(config, params, packed.species, where, packed.neighbors).sum()  # noqa: E731
        forces = jax.grad(energy)(positions)
        return (forces[:13] ** 2).sum(), forces

    both = jax.jit(jax.grad(size_of_forces, (0, 1), has_aux=True))
    (by_params, by_positions), forces = both(params, jnp.asarray(packed.positions))
    for leaf in jax.tree.leaves((by_params, forces)):
        assert np.isfinite(leaf).all()
    assert np.isfinite(by_positions[:13]).all()
    assert not np.any(forces[8:16])  # of a lone atom and its padding
    assert np.abs(jax.tree.leaves(by_params)[0]).max() > 0


def test_dead_parts_are_not_computed():
    """Filled with NaN, the last gates and mixing and the first filter of vectors change nothing."""
    ck = checkpoint("cartesian")
    params = jax.tree.map(np.array, ck.params)
    c = ck.config.hidden_dim
    params["interaction_1"]["update"]["gates"]["kernel"][:, c:] = np.nan
    params["interaction_1"]["update"]["mixing"][:] = np.nan
    params["interaction_0"]["message"]["filter"]["kernel"][:, c : 2 * c] = np.nan
    broken = ForceField.from_checkpoint(ck.replace(params=params), filter="exact")
    structure = molecule(8)
    assert broken.predict(structure).energy == field("cartesian").predict(structure).energy


def test_a_batch_is_what_its_structures_are_alone():
    """Molecules of several sizes and a crystal, in the order given; a graph of flat edges says the same."""
    structures = [molecule(3, 1), crystal(), molecule(12, 2), molecule(4, 3), molecule(1, 4)]
    chosen = field()
    together = chosen.predict(structures)
    predicted = jax.jit(partial(predict_graph, chosen.config, stress=True))
    graph = jax.device_get(predicted(chosen.params, batch_graphs(structures, 4.0)))
    first = 0
    for number, (structure, found) in enumerate(zip(structures, together, strict=True)):
        atoms = slice(first, first := first + structure.num_atoms)
        assert found.energy == pytest.approx(graph.energy[number], abs=1e-5)
        assert found.energy == pytest.approx(found.atomic_energies.sum(), abs=1e-5)
        np.testing.assert_allclose(found.forces, graph.forces[atoms], atol=1e-5)
        assert (found.stress is None) == (not structure.periodic)
        if structure.periodic:
            np.testing.assert_allclose(found.stress, graph.stress[number], atol=1e-6)
        else:
            assert np.isnan(graph.stress[number]).all()
    assert graph.energy[5] == 0
    assert not np.any(graph.stress[5])


def test_large_molecules_get_lists():
    structure = molecule(64)
    twice = Structure(
        np.tile(structure.species, 2),
        np.concatenate([structure.positions, structure.positions + 50]),
        None,
        OPEN,
    )
    ((packed, places),) = pack([twice], 4.0)
    assert places == [0]
    assert packed.neighbors.block == 0
    once, both = field().predict([structure, twice])
    assert both.energy == pytest.approx(2 * once.energy, rel=1e-5)


def test_two_hundred_molecules_compile_at_most_eight_programs():
    draws = np.random.default_rng(0)
    molecules = [molecule(int(atoms), 7) for atoms in draws.integers(1, 25, 200)]
    chosen = field(num_interactions=1)
    with compilations() as counts:
        found = chosen.predict(molecules)
    assert len(found) == 200
    assert 1 <= counts["predict_packed"] <= 8
    assert BLOCKS[-1] == 64


def test_reference_energies_are_added_to_atoms():
    ck = checkpoint("equivariant", reference_energies=True)
    energies = np.arange(10, dtype=np.float32)
    shifted = ck.replace(params={**ck.params, "reference_energies": energies})
    structure = molecule(8)
    plain, moved = (
        ForceField.from_checkpoint(one, filter="exact").predict(structure) for one in (ck, shifted)
    )
    np.testing.assert_allclose(
        moved.atomic_energies - plain.atomic_energies, energies[structure.species], atol=1e-5
    )
    np.testing.assert_allclose(moved.forces, plain.forces, atol=1e-6)


def test_many_atoms_add_up_in_single_precision():
    draw = np.random.default_rng(0)
    of_atoms = (-8 + 0.5 * draw.normal(size=(3, 2000))).astype(np.float32)
    owner = np.repeat(np.arange(3), 2000)
    found = sums_of_structures(of_atoms.reshape(-1), owner, 3)
    exact = of_atoms.astype(np.float64).sum(1)
    assert np.abs(np.asarray(found) - exact).max() <= 1.5e-3  # eV of 16,000: half a unit in the last place
    slopes = jax.grad(lambda energies: sums_of_structures(energies, owner, 3)[1])(of_atoms.reshape(-1))
    assert slopes.tolist() == [0.0] * 2000 + [1.0] * 2000 + [0.0] * 2000


def test_bad_input_is_told_in_one_line():
    chosen = field(species=(1, 6))
    water = Structure(np.array([8, 1, 1], np.int32), np.eye(3), None, OPEN)
    with pytest.raises(ValueError, match=r"structure.*O.*trained"):
        chosen.predict(water)
    with pytest.raises(ValueError, match=r"structure 1.*92"):
        field().predict([METHANE, METHANE._replace(species=np.array([92, 1, 1, 1, 1], np.int32))])
    with pytest.raises(ValueError, match="structure: atom 0.*nan"):
        field().predict(METHANE._replace(positions=METHANE.positions * np.nan))
    with pytest.raises(ValueError, match="atoms must be ase.Atoms, a Structure or a sequence of them, not"):
        field().predict(5)
    with pytest.raises(ValueError, match="rotation_average"):
        field().predict(METHANE, rotation_average=0)
    with pytest.raises(ValueError, match=r"shape \(5, 3\)"):
        field().hessian_vector_product(METHANE, np.zeros(3))
    with pytest.raises(ValueError, match="stress needs a cell: give one, or leave stress out"):
        predict_rows(
            chosen.config,
            chosen.params,
            METHANE.species,
            METHANE.positions,
            all_pairs(1, 5),
            graph_of_atom=np.zeros(5, np.int32),
            num_graphs=1,
            stress=True,
        )
    with pytest.raises(ValueError, match="'ten'"):
        ForceField.from_checkpoint(checkpoint("equivariant").replace(kind="ten"))


def test_a_dtype_is_that_of_the_computation():
    ck = checkpoint("equivariant")
    assert ForceField.from_checkpoint(ck, filter="exact").dtype == "float32"
    assert ForceField.from_checkpoint(ck, filter="exact", dtype="float16").dtype == "float16"
    with pytest.raises(ValueError, match="dtype='float64' needs jax.config.update"):
        ForceField.from_checkpoint(ck, dtype="float64")


def test_tables_that_are_not_exact_enough_are_refused_or_left_out():
    ck = checkpoint("cartesian")
    sharp = {**ck.params, "rbf": {**ck.params["rbf"], "widths": ck.params["rbf"]["widths"] / 200}}
    assert choose_filters(ck.config, sharp, "auto") is None
    with pytest.raises(ValueError, match='filter="exact"'):
        choose_filters(ck.config, sharp, "table")
    assert choose_filters(ck.config, ck.params, "exact") is None
    tables = choose_filters(ck.config, ck.params)
    assert tables is not None
    assert tables[0].coefficients[0][0].shape == (1024, 8)
    with pytest.raises(ValueError, match="no filter"):
        choose_filters(ck.config, ck.params, "spline")  # type: ignore[arg-type]
