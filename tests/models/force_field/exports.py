"""A small force field, structures of many sizes, and what the library itself says of them."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np

import sparsejax as sj
from sparsejax.models.force_field.graph import batch_graphs
from sparsejax.models.force_field.prediction import predict_graph
from sparsejax.models.force_field.structure import Structure
from tests.models.force_field import files
from tests.models.force_field.samples import molecule


def crystal(rng):
    """Two atoms in a skewed cell smaller than the cutoff."""
    cell = 2.8 * np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    positions = np.array([[0, 0, 0], [1.2, 1.5, 1.4]]) + rng.uniform(-0.1, 0.1, (2, 3))
    return Structure(np.array([8, 6], np.int32), positions, cell, np.ones(3, bool))


@lru_cache
def student():
    state = files.state_dict(equivariant=True, reference_energies=True)
    with tempfile.TemporaryDirectory() as folder:
        path = files.write(Path(folder), files.saved(state))
        return sj.load(path, overrides={"species": (1, 6, 8)})


@lru_cache
def structures():
    rng = np.random.default_rng(0)
    found = {f"{size} atoms": molecule(size, rng) for size in (1, 2, 5, 8)}
    return found | {"crystal": crystal(rng)}


@lru_cache
def expected():
    """Energy, forces, atomic energies and stress of each structure."""
    graph = batch_graphs(list(structures().values()), files.CUTOFF)
    found = jax.jit(predict_graph, static_argnums=0, static_argnames="stress")(
        student().config, student().params, graph, stress=True
    )
    ends = np.cumsum([structure.num_atoms for structure in structures().values()])
    answers = {}
    for number, (name, structure) in enumerate(structures().items()):
        own = slice(ends[number] - structure.num_atoms, ends[number])
        answers[name] = {
            "energy": found.energy[number],
            "forces": found.forces[own],
            "atomic_energies": found.atomic_energies[own],
            "stress": found.stress[number],
        }
    return answers


def assert_answers(found, name):
    """The outputs for a structure, padded or not, are what the library says."""
    truth, count = expected()[name], structures()[name].num_atoms
    np.testing.assert_allclose(found["energy"], truth["energy"], rtol=1e-5)
    np.testing.assert_allclose(found["forces"][:count], truth["forces"], atol=2e-6)
    np.testing.assert_allclose(found["atomic_energies"][:count], truth["atomic_energies"], atol=2e-6)
    np.testing.assert_allclose(found["stress"], truth["stress"], rtol=1e-4, atol=1e-7)
    assert not np.any(found["forces"][count:])
    assert not np.any(found["atomic_energies"][count:])
    assert np.isnan(found["stress"]).all() == (name != "crystal")
