"""Structures: what is read, and what is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.config import ForceFieldConfig
from sparsejax.models.force_field.structure import (
    SYMBOLS,
    Structure,
    as_structure,
    check_structure,
    heights,
    periodic_cell,
)

OPEN, PERIODIC = np.zeros(3, bool), np.ones(3, bool)
CONFIG = ForceFieldConfig(max_z=100)
WATER = Structure(
    np.array([8, 1, 1], np.int32), np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]), None, OPEN
)


def test_atoms_of_ase_are_read_without_a_cell_for_molecules_and_with_one_for_crystals():
    ase = pytest.importorskip("ase")
    build = pytest.importorskip("ase.build")
    water = as_structure(build.molecule("H2O"))
    assert water.cell is None
    assert not water.periodic
    assert water.species.tolist() == [8, 1, 1]
    atoms = ase.Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.2]], cell=[4, 5, 6], pbc=[True, False, True])
    slab = as_structure(atoms)
    assert slab.positions.dtype == np.float64
    assert slab.species.dtype == np.int32
    np.testing.assert_array_equal(slab.cell, np.diag([4.0, 5.0, 6.0]))
    assert slab.pbc.tolist() == [True, False, True]
    atoms.positions += 1
    assert slab.positions[0, 0] == 0


def test_a_structure_is_read_from_itself_and_from_bare_attributes():
    class Bare:
        numbers, positions, cell, pbc = (1,), [(1, 2, 3)], (3, 4, 5), True

    read = as_structure(Bare)
    np.testing.assert_array_equal(read.cell, np.diag([3, 4, 5]))
    assert read.pbc.all()
    again = as_structure(read)
    assert all(np.array_equal(a, b) for a, b in zip(read, again, strict=True))


def test_known_elements_have_their_symbols():
    assert [SYMBOLS[z] for z in (1, 14, 67, 118)] == ["H", "Si", "Ho", "Og"]


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"numbers": [1.0, 1.0]}, r"must be integers \(n,\), not float64"),
        ({"positions": [[0, 0, 0]]}, r"positions of shape \(1, 3\) do not fit 2"),
        ({"cell": np.zeros((2, 3))}, "a cell must be three lengths or three rows"),
    ],
)
def test_attributes_of_the_wrong_shape_are_refused(change, needle):
    fields = {"numbers": [1, 1], "positions": np.zeros((2, 3)), "cell": None, "pbc": False} | change
    with pytest.raises(ValueError, match=needle):
        as_structure(type("Atoms", (), fields))


def test_what_has_no_atoms_is_refused():
    with pytest.raises(ValueError, match="a dict is no structure; give ase.Atoms"):
        as_structure({})


def _moved(atom: int, axis: int, value: float) -> Structure:
    positions = WATER.positions.copy()
    positions[atom, axis] = value
    return WATER._replace(positions=positions)


SINGULAR = np.array([[4.0, 0, 0], [0, 4, 0], [8, 4, 0]])
REFUSED = {
    "empty": (
        Structure(np.zeros(0, np.int32), np.zeros((0, 3)), None, OPEN),
        "drop.xyz: has no atoms; at least one is needed",
    ),
    "nan": (_moved(1, 2, np.nan), "drop.xyz: atom 1 has the z position nan"),
    "inf": (_moved(2, 0, -np.inf), "drop.xyz: atom 2 has the x position -inf"),
    "ghost": (
        WATER._replace(species=np.array([8, 0, 1])),
        "drop.xyz: atom 1 has atomic number 0; this network's table holds 1 to 100",
    ),
    "beyond the table": (
        WATER._replace(species=np.array([8, 1, 101])),
        "drop.xyz: atom 2 has atomic number 101; this network's table holds 1 to 100",
    ),
    "no cell": (
        WATER._replace(pbc=PERIODIC),
        "drop.xyz: pbc is set but there is no cell; set a cell, or pbc=False",
    ),
    "flat cell": (
        WATER._replace(pbc=PERIODIC, cell=np.diag([9.0, 0, 9])),
        "drop.xyz: its cell has no extent along b, which repeats; set a cell, or pbc=False",
    ),
    "singular cell": (
        WATER._replace(pbc=PERIODIC, cell=SINGULAR),
        "drop.xyz: its cell is singular: the lattice vectors that repeat lie in one plane",
    ),
    "nan cell": (
        WATER._replace(pbc=PERIODIC, cell=np.diag([9.0, np.nan, 9])),
        "drop.xyz: its cell holds NaN or infinite numbers",
    ),
    "one site": (
        Structure(np.array([1, 6, 6]), np.array([[3.0, 0, 0], [0, 0, 0], [0, 0, 5e-7]]), None, OPEN),
        "drop.xyz: atoms 1 and 2 are on one site; move or remove one of them",
    ),
    "one site in another image": (
        Structure(np.array([1, 6]), np.array([[0, 0, 0.25], [-9.0, 18, 9.25]]), np.eye(3) * 9, PERIODIC),
        "drop.xyz: atoms 0 and 1 are on one site; move or remove one of them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_that_says_what_and_where(case):
    structure, message = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        check_structure(structure, CONFIG, name="drop.xyz")
    assert str(caught.value) == message


def test_elements_that_were_never_trained_are_named_beside_the_trained_ones():
    config = ForceFieldConfig(max_z=100, species=(1, 6, 7))
    with pytest.raises(ValueError) as caught:
        check_structure(WATER._replace(species=np.array([8, 1, 14])), config)
    assert str(caught.value) == "structure: holds O, Si; this network was trained on H, C, N only"


@pytest.mark.parametrize(
    "structure",
    [
        WATER,
        _moved(0, 0, 1e-5),
        Structure(np.array([1]), np.zeros((1, 3)), None, OPEN),
        WATER._replace(cell=SINGULAR),  # nothing repeats, so the cell means nothing
        WATER._replace(cell=np.diag([9.0, 9, 0]), pbc=np.array([True, True, False])),
        WATER._replace(cell=np.array([[9.0, 0, 0], [0, 9, 0], [9, 9, 0]]), pbc=np.array([True, True, False])),
    ],
)
def test_sound_structures_pass(structure):
    check_structure(structure, CONFIG)


def test_rows_that_do_not_repeat_become_unit_normals():
    cell = np.array([[3.0, 0, 0], [1, 1, 7], [0, 5, 0]])
    full = periodic_cell(WATER._replace(cell=cell, pbc=np.array([True, False, True])))
    np.testing.assert_array_equal(full[[0, 2]], cell[[0, 2]])
    np.testing.assert_allclose(np.abs(full[1]), [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(heights(full), [3, 1, 5])


def test_heights_are_distances_between_faces():
    cell = np.random.default_rng(0).normal(size=(3, 3)) + 4 * np.eye(3)
    volume = abs(np.linalg.det(cell))
    faces = [np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)]
    np.testing.assert_allclose(heights(cell), volume / np.array(faces), rtol=1e-12)
