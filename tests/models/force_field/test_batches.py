"""Batches: every structure once an epoch, few shapes, the same again after a kill, true labels."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from sparsejax.models.force_field import batches as batches_module
from sparsejax.models.force_field.batches import BucketedBatches, loss_masks
from sparsejax.models.force_field.buckets import size_buckets
from sparsejax.models.force_field.graph import batch_graphs
from tests.models.force_field.samples import samples

SIZES = tuple(np.random.default_rng(0).integers(1, 9, 37))
SAMPLES = samples(SIZES)


def shapes(batch):
    return tuple(leaf.shape for leaf in jax.tree.leaves(batch))


def assert_equal(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def contents(batch):
    """Real structures of a batch: species, forces, energy, stress."""
    real, atoms = batch.graph.globals["mask"], batch.graph.nodes["mask"]
    if not real.any():
        return []
    borders = np.cumsum(batch.graph.n_node[real])[:-1]
    parts = (
        np.split(array[atoms], borders) for array in (batch.graph.nodes["species"], batch.labels["forces"])
    )
    stress = batch.labels["stress"][real]
    stresses = [
        row if has else None for row, has in zip(stress, batch.labels["stress_mask"][real], strict=True)
    ]
    return list(zip(*parts, batch.labels["energy"][real], stresses, strict=True))


def number_of(energy):
    return int(np.argmin([abs(sample.energy - energy) for sample in SAMPLES]))


@pytest.mark.parametrize("buckets", [1, 3])
def test_an_epoch_has_every_structure_once_with_its_own_labels(buckets):
    batches = BucketedBatches(SAMPLES, 3.0, batch_size=5, buckets=buckets)
    found = [item for batch in batches for item in contents(batch)]
    assert sorted(number_of(energy) for *_, energy, _ in found) == list(range(len(SAMPLES)))
    for species, forces, energy, stress in found:
        sample = SAMPLES[number_of(energy)]
        np.testing.assert_array_equal(species, sample.structure.species)
        np.testing.assert_array_equal(forces, sample.forces)
        assert energy == np.float32(sample.energy)
        assert (stress is None) == (sample.stress is None)
        if stress is not None:
            np.testing.assert_array_equal(stress, sample.stress.astype(np.float32))


def test_batches_are_even_and_of_few_shapes():
    batches = BucketedBatches(SAMPLES, 3.0, batch_size=5, buckets=3)
    epochs = list(batches.steps(0, 3 * len(batches)))
    assert len({shapes(batch) for batch in epochs}) == len(batches.capacities) == 3
    counts = [int(batch.graph.globals["mask"].sum()) for batch in epochs]
    assert min(counts) >= 4 and max(counts) <= 5
    assert {batch.graph.nodes["mask"].shape[0] for batch in epochs} == {
        capacity.nodes for capacity in batches.capacities
    }
    atoms = sum(batch.graph.nodes["mask"].sum() for batch in epochs)
    places = sum(batch.graph.nodes["mask"].size for batch in epochs)
    assert batches.padding == pytest.approx(1 - atoms / places)
    assert batches.padding < BucketedBatches(SAMPLES, 3.0, batch_size=5, buckets=1).padding


def test_batches_depend_on_seed_and_step_alone():
    first, again = (BucketedBatches(SAMPLES, 3.0, batch_size=5, seed=3) for _ in range(2))
    whole = list(first.steps(0, 2 * len(first)))
    for step in (len(first) + 2, 1, 2 * len(first) - 1):  # in any order, without those before
        assert_equal(again[step], whole[step])
    for resumed, batch in zip(again.steps(5, len(whole), ahead=1), whole[5:], strict=True):
        assert_equal(resumed, batch)
    epochs = whole[: len(first)], whole[len(first) :]
    orders = [[number_of(energy) for batch in epoch for *_, energy, _ in contents(batch)] for epoch in epochs]
    assert orders[0] != orders[1]
    other = BucketedBatches(SAMPLES, 3.0, batch_size=5, seed=4)
    assert contents(other[0])[0][2] != contents(first[0])[0][2]


def test_without_shuffling_all_epochs_are_alike():
    batches = BucketedBatches(SAMPLES, 3.0, batch_size=5, shuffle=False)
    for step in range(len(batches)):
        assert_equal(batches[step], batches[step + 3 * len(batches)])


def test_edges_that_do_not_fit_in_memory_are_found_again(monkeypatch):
    held = BucketedBatches(SAMPLES, 3.0, batch_size=5)
    monkeypatch.setattr(batches_module, "_HELD_EDGES", 20)
    for step, batch in enumerate(BucketedBatches(SAMPLES, 3.0, batch_size=5)):
        assert_equal(batch, held[step])


def test_graphs_are_those_of_their_structures():
    batch = BucketedBatches(SAMPLES, 3.0, batch_size=5)[0]
    structures = [SAMPLES[number_of(energy)].structure for *_, energy, _ in contents(batch)]
    plain = batch_graphs(structures, 3.0)
    real = batch.graph.edges["mask"]
    np.testing.assert_array_equal(batch.graph.senders[real], plain.senders[plain.edges["mask"]])
    np.testing.assert_array_equal(batch.graph.edges["shift"][real], plain.edges["shift"][plain.edges["mask"]])
    masks = loss_masks(batch.graph)
    assert (
        masks.atoms.sum()
        == masks.num_atoms[masks.graphs].sum()
        == sum(map(len, (s.species for s in structures)))
    )


def test_reference_energies_are_taken_off_before_rounding():
    references = np.zeros(9)
    references[[1, 6, 8]] = -1e6, -2e7, -3e8
    shifted = [
        sample._replace(energy=sample.energy + references[sample.structure.species].sum())
        for sample in SAMPLES
    ]
    batches = BucketedBatches(shifted, 3.0, batch_size=5, reference_energies=references)
    plain = BucketedBatches(SAMPLES, 3.0, batch_size=5)
    np.testing.assert_allclose(batches[0].labels["energy"], plain[0].labels["energy"], atol=2e-6)


def test_large_structures_come_in_smaller_batches():
    batches = BucketedBatches(SAMPLES, 3.0, batch_size=16, max_atoms=20, buckets=3)
    for batch in batches:
        assert batch.graph.nodes["mask"].sum() <= 20
    assert max(capacity.graphs for capacity in batches.capacities) > 5
    lone = BucketedBatches(SAMPLES, 3.0, batch_size=16, max_atoms=1)
    assert {
        int(batch.graph.globals["mask"].sum()) for batch in lone if batch.graph.nodes["mask"].sum() > 1
    } == {1}


def test_shards_hold_together_what_a_batch_holds():
    whole = BucketedBatches(SAMPLES[:11], 3.0, batch_size=4, buckets=2)
    parts = BucketedBatches(SAMPLES[:11], 3.0, batch_size=4, buckets=2, shards=4)
    assert len(whole) == len(parts)
    for together, cut in zip(whole, parts, strict=True):
        assert {leaf.shape[0] for leaf in jax.tree.leaves(cut)} == {4}
        each = [jax.tree.map(lambda leaf, place=place: leaf[place], cut) for place in range(4)]
        energies = list(itertools.chain(*([item[2] for item in contents(part)] for part in each)))
        assert energies == [item[2] for item in contents(together)]
    empty = BucketedBatches(SAMPLES[:1], 3.0, batch_size=2, shards=2)[0]
    assert not empty.graph.nodes["mask"][1].any() and not empty.graph.globals["mask"][1].any()
    assert not empty.labels["energy"][1].any()


def test_buckets_waste_least():
    rng = np.random.default_rng(1)
    for _ in range(20):
        sizes = rng.integers(1, 12, rng.integers(3, 12))
        count = int(rng.integers(1, 4))
        found = size_buckets(sizes, count)
        assert sorted(np.concatenate(found)) == list(range(len(sizes)))
        ordered = np.sort(sizes)
        best = min(
            sum(len(part) * part.max() for part in np.split(ordered, cuts) if len(part))
            for cuts in itertools.combinations_with_replacement(range(len(sizes) + 1), count - 1)
        )
        assert sum(len(part) * sizes[part].max() for part in found) == best
    many = size_buckets(np.arange(1, 5001), 4)
    assert [len(part) for part in many] == pytest.approx([1250] * 4, abs=20)


@pytest.mark.parametrize("count", [5, 9, 10, 100])
def test_buckets_hold_a_batch_at_least(count):
    sizes = np.concatenate([np.random.default_rng(0).integers(1, 30, count - 1), [2000]])
    found = size_buckets(sizes, 4, least=5)
    assert min(map(len, found)) >= 5
    assert len(found) == {5: 1, 9: 1, 10: 2, 100: 4}[count]


def test_bad_arguments_are_told_in_one_line():
    with pytest.raises(ValueError, match="there are no structures"):
        BucketedBatches([], 3.0, batch_size=2)
    for name in ("batch_size", "buckets", "shards", "max_atoms"):
        with pytest.raises(ValueError, match=f"{name} must be positive, and is 0"):
            BucketedBatches(SAMPLES[:2], 3.0, **{"batch_size": 2, name: 0})
    with pytest.raises(IndexError, match="steps count from 0, not -1"):
        BucketedBatches(SAMPLES[:2], 3.0, batch_size=2)[-1]
