"""Many structures at once: the same answers as one by one, whoever computes them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from sparsejax.models.force_field.potential import Prediction
from sparsejax.models.force_field.screening import _as_vector, _length, _of_vector, _rounds, screen
from sparsejax.models.force_field.structure import Structure
from tests.models.force_field.test_potential import METHANE, OPEN, crystal, field, molecule


def test_structures_come_back_in_their_order():
    given, seen = [METHANE, crystal(), molecule(7, 2), molecule(6, 3)], []
    found = screen(field(), given, told=seen.append)
    assert seen == [3, 4]
    for one, structure in zip(found, given, strict=True):
        alone = field().predict(structure)
        assert (one.stress is None) == (alone.stress is None)
        for own, wanted in zip(jax.tree.leaves(one), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_every_structure_has_one_place_in_the_plan(parts):
    sizes = np.random.default_rng(0).integers(1, 25, 500)
    given = [*(molecule(int(size), 5) for size in sizes), *(crystal(seed) for seed in range(4))]
    rounds = _rounds(given, parts)
    places = [place for one in rounds for batch in one.batches for place in batch]
    assert sorted(places) == list(range(len(given)))
    for one in rounds:
        assert len(one.batches) == parts and one.batches[0]
        full = [len(batch) for batch in one.batches]
        assert full == sorted(full, reverse=True) and full[0] <= one.graphs
        assert {given[place].periodic for batch in one.batches for place in batch} == {one.kind.repeats}
        assert one.graphs * (one.kind.block or 1) <= 1024


def test_few_structures_are_shared_out_too():
    """40 molecules would fit into one batch, and three of four devices would have nothing to do."""
    (one,) = _rounds([molecule(4, seed) for seed in range(40)], 4)
    assert [len(batch) for batch in one.batches] == [10, 10, 10, 10]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            molecule(4)._replace(species=np.array([6, 1, 1, 79], np.int32)),
            "structure 1: atom 3 has atomic nu",
        ),
        (
            molecule(4)._replace(positions=np.full((4, 3), np.nan)),
            "structure 1: atom 0 has the x position nan",
        ),
        (Structure(np.zeros(0, np.int32), np.zeros((0, 3)), None, OPEN), "structure 1: has no atoms"),
        ("H2O", "structure 1: a str is no structure"),
    ],
)
def test_a_bad_structure_is_named_by_its_place(bad, message):
    with pytest.raises(ValueError, match=message):
        screen(field(), [molecule(4), bad])


def test_no_structures_are_refused():
    with pytest.raises(ValueError, match="there are no structures to screen"):
        screen(field(), [])


def test_a_result_that_is_no_number_names_its_structure():
    chosen = field()
    broken = jax.tree.map(lambda leaf: leaf, chosen.params)
    table = broken["embedding"]["embedding"]
    broken["embedding"]["embedding"] = table.at[8].set(np.nan)
    methane = METHANE._replace(species=np.full(5, 6, np.int32))
    with_oxygen = METHANE._replace(species=np.full(5, 8, np.int32))
    with pytest.raises(ValueError, match="^structure 2: the energy or a force is no number"):
        screen(dataclasses.replace(chosen, params=broken), [methane, methane, with_oxygen])


@pytest.mark.parametrize("structure", [METHANE, crystal()], ids=["molecule", "crystal"])
def test_what_is_sent_to_other_processes_comes_back(structure):
    atoms, rng = structure.num_atoms, np.random.default_rng(1)
    stress = rng.normal(size=6) if structure.pbc.all() else None
    sent = Prediction(rng.normal(), rng.normal(size=(atoms, 3)), stress, rng.normal(size=atoms))
    vector = _as_vector(sent)
    assert vector.shape == (_length(structure),)
    found = _of_vector(vector, structure)
    assert (found.stress is None) == (stress is None)
    for own, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(sent), strict=True):
        np.testing.assert_array_equal(own, wanted)
