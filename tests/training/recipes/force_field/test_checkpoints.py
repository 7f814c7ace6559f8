"""The shipped force field knows molecules like those it was taught, and says so in the manifest."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.force_field.graph import batch_graphs
from tests.conftest import ROOT

pytest.importorskip("ase")

from sparsejax.models.force_field.perturb import rattled
from sparsejax.models.force_field.teachers import gfn2, label_one
from sparsejax.training.recipes.force_field.checkpoints import _UNSEEN, FILE, molecules


@pytest.fixture(scope="module")
def shipped():
    return sj.load(ROOT / "checkpoints" / FILE)


def test_the_manifest_says_how_it_was_made_and_how_good_it_is(shipped):
    entries = json.loads((ROOT / "checkpoints" / "manifest.json").read_text())["checkpoints"]
    (entry,) = (entry for entry in entries if entry["file"] == FILE)
    config = shipped.config
    sizes = (config.hidden_dim, config.num_interactions, config.num_rbf, config.variant)
    assert sizes == (32, 2, 10, "equivariant")
    assert (config.species, config.reference_energies) == ((1, 6, 7, 8), True)
    assert entry["held_out"]["times_better_than_no_force"] > 15
    assert entry["unseen_molecules"]["times_better_than_no_force"] > 5
    assert entry["held_out"]["energy_rmse_meV_per_atom"] < 12
    assert entry["seconds_all"] < 20 * 60
    assert "labelled by GFN2-xTB; 24 epochs of batches of 16, seed 42" in entry["made"]


def test_it_agrees_with_its_teacher_on_new_structures(shipped):
    pytest.importorskip("tblite")
    every = molecules()
    assert len(every) == 59
    new = rattled([*every.values()], 1, spread=(0.04, 0.1), scale=(0.97, 1.03), seed=99)
    labels = [label_one(atoms, gfn2()) for atoms in new]
    found = shipped.apply(batch_graphs(new, shipped.config.cutoff))
    forces = np.split(np.asarray(found.forces), np.cumsum([len(atoms) for atoms in new]))
    for unseen, times, meV in ((False, 12, 20), (True, 4, 80)):
        some = [
            (label, one, float(energy))
            for name, label, one, energy in zip(every, labels, forces, found.energy, strict=False)
            if (name in _UNSEEN) == unseen and np.abs(label.forces).max() < 25
        ]
        truth, errors = (
            np.concatenate(part) for part in zip(*((a.forces, a.forces - b) for a, b, _ in some), strict=True)
        )
        assert len(some) >= 4
        assert np.std(truth) > times * np.std(errors)
        off = [(energy - label.energy) / len(label.forces) for label, _, energy in some]
        assert 1e3 * np.sqrt(np.mean(np.square(off))) < meV
