"""Minimisation: the steps of ASE's, the minimum, copies each at their own pace."""

from __future__ import annotations

import numpy as np

from sparsejax.models.force_field import md
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster


def test_steps_are_those_of_ase():
    from ase.optimize import FIRE

    run = md.minimize(morse.morse(), cluster(), steps=500, fmax=1e-4, every=500)
    atoms = cluster()
    atoms.calc = morse.calculator()
    other = FIRE(atoms, logfile=None)
    assert other.run(fmax=1e-4, steps=500)
    assert run.finished
    assert run.simulation.step == other.nsteps
    np.testing.assert_allclose(run.atoms.positions, atoms.positions, rtol=0, atol=1e-9)
    assert np.sqrt((run.atoms.get_forces() ** 2).sum(axis=1).max()) <= 1e-4


def test_copies_are_minimised_as_they_would_be_alone():
    starts = [cluster(), cluster()]
    starts[1].rattle(0.1, seed=2)
    together = md.minimize(morse.morse(), starts, steps=500, fmax=1e-4, every=500)
    alone = md.minimize(morse.morse(), starts[1], steps=500, fmax=1e-4, every=500)
    assert together.finished and len(together.atoms) == 2
    np.testing.assert_allclose(together.atoms[1].positions, alone.atoms.positions, atol=1e-10)
    assert together.potential.shape == (2, 2)


def test_too_few_steps_are_told():
    run = md.minimize(morse.morse(), cluster(), steps=5, fmax=1e-4, every=2)
    assert not run.finished
    assert run.step.tolist() == [0, 2, 4]
