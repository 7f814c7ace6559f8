"""Labels of ASE calculators: what is asked, what fails, and processes that die."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from sparsejax.models.force_field.structure import as_structure
from sparsejax.models.force_field.teachers import (
    Failure,
    Label,
    gfn1,
    gfn2,
    label_one,
    labelled_chunks,
    named_teacher,
)


class Fragile(EMT):
    """A teacher whose process dies of helium."""

    def calculate(self, atoms=None, *arguments, **options):
        if 2 in atoms.numbers:
            os._exit(1)
        super().calculate(atoms, *arguments, **options)


class Lost(EMT):
    """A teacher that finds no number."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["forces"] = self.results["forces"] * np.nan


def nitrogen(length):
    return Atoms("N2", [[0, 0, 0], [0, 0, length]])


def test_a_label_is_what_the_calculator_says():
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=0)
    label = label_one(as_structure(crystal), EMT())
    crystal.calc = EMT()
    assert label.energy == crystal.get_potential_energy()
    np.testing.assert_array_equal(label.forces, crystal.get_forces())
    np.testing.assert_array_equal(label.stress, crystal.get_stress())
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    assert label_one(slab, EMT()).stress is None
    assert slab.calc is None


def test_what_raises_or_gives_no_numbers_fails_with_its_reason():
    assert label_one(Atoms("Xe"), EMT()) == Failure("NotImplementedError: No EMT-potential for Xe")
    assert label_one(nitrogen(1.1), Lost()).reason == "the teacher gave numbers that are not finite"


def test_a_process_that_dies_takes_no_other_structure_along():
    chunks = [(0, [nitrogen(1.0), Atoms("Xe"), Atoms("He")]), (1, [nitrogen(1.2)])]
    found = dict(labelled_chunks(chunks, Fragile, processes=1))
    kinds = {number: [type(outcome) for outcome in found[number]] for number in sorted(found)}
    assert kinds == {0: [Label, Failure, Failure], 1: [Label]}
    assert found[0][2].reason == "the process that computed it died"
    for number, length in ((0, 1.0), (1, 1.2)):
        assert found[number][0].energy == label_one(nitrogen(length), EMT()).energy


def test_teachers_have_names():
    assert named_teacher("gfn2") is gfn2
    assert named_teacher("ase.calculators.emt:EMT") is EMT
    with pytest.raises(ValueError, match="no teacher is called 'gfn'; there are gfn2, gfn1, and package"):
        named_teacher("gfn")
    with pytest.raises(ValueError, match="ase has no function 'nothing'"):
        named_teacher("ase:nothing")
    with pytest.raises(ValueError, match="at least 1 process, not 0"):
        next(labelled_chunks([(0, [])], EMT, processes=0))


def test_gfn1_is_another_method():
    pytest.importorskip("tblite")
    assert (gfn1().parameters.method, gfn2().parameters.method) == ("GFN1-xTB", "GFN2-xTB")


def test_gfn2_gives_its_published_numbers_whatever_came_before():
    pytest.importorskip("tblite")
    calculator = gfn2()
    first = label_one(molecule("H2O"), calculator)
    assert first.energy == pytest.approx(-137.96777594361677, abs=1e-5)  # the library's documentation
    np.testing.assert_allclose(first.forces[0], [0, 0, -0.749527168], atol=1e-5)
    moved = molecule("H2O")
    moved.rattle(0.1, seed=1)
    label_one(moved, calculator)
    again = label_one(molecule("H2O"), calculator)
    # Up to the order in which threads add.
    assert again.energy == pytest.approx(first.energy, abs=1e-10)
    np.testing.assert_allclose(again.forces, first.forces, atol=1e-10)
