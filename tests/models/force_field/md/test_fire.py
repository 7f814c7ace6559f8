"""Minimisation: the steps of ASE's, the minimum, copies each at their own pace."""

from __future__ import annotations

import numpy as np

from sparsejax.models.force_field import md
from tests.models.force_field.md import morse
from tests.models.force_field.md.systems import cluster


def _starts():
    starts = [cluster(), cluster()]
    starts[1].rattle(0.1, seed=2)
    return starts


def test_copies_take_the_steps_of_ase_each_at_its_own_pace():
    from ase.optimize import FIRE

    run = md.minimize(morse.morse(), _starts(), steps=500, fmax=1e-4, every=500)
    steps = []
    for atoms, found in zip(_starts(), run.atoms, strict=True):
        atoms.calc = morse.calculator()
        other = FIRE(atoms, logfile=None)
        assert other.run(fmax=1e-4, steps=500)
        steps.append(other.nsteps)
        np.testing.assert_allclose(found.positions, atoms.positions, rtol=0, atol=1e-9)
        assert not found.get_momenta().any()
        assert np.sqrt((found.get_forces() ** 2).sum(axis=1).max()) <= 1e-4
    assert run.finished
    assert run.simulation.step == max(steps) != min(steps)
    assert run.step.tolist() == [0, max(steps)]
    assert run.potential.shape == (2, 2) and (run.potential[1] < run.potential[0] - 0.1).all()


def test_too_few_steps_are_told():
    run = md.minimize(morse.morse(), _starts(), steps=5, fmax=1e-4, every=2)
    assert not run.finished
    assert run.step.tolist() == [0, 2, 4]
