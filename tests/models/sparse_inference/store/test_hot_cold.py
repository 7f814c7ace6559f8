"""Counts and the published classification, against the original's trace and a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.sparse_inference.store.hot_cold import NeuronCounts, classify
from tests import golden

FRACTIONS = (0.0, 0.1, 0.2, 0.5)


def replay(records, neurons, fraction):
    """The counts after all records, and the number of hot neurons after each automatic classification."""
    counts, found = NeuronCounts(neurons, fraction), []
    for ids in records:
        if counts.record(ids):
            found.append(counts.statistics.num_hot)
    return counts, found


@pytest.mark.golden("neuron_cache_a")
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_traces_are_the_originals(fraction):
    data = golden.arrays("sparse_inference", "neuron_cache_a")
    records = np.split(data["records_flat"], np.cumsum(data["lengths"])[:-1].astype(int))
    counts, automatic = replay(records, 40, fraction)
    assert automatic == [int(data[f"n_hot_at_auto_reclassify_{fraction}"])]
    assert counts.total == 1007
    np.testing.assert_allclose(counts.frequency, data["frequency"], rtol=1e-15)
    counts.reclassify()
    assert np.array_equal(counts.hot, data[f"hot_{fraction}"])
    assert np.array_equal(np.sort(np.concatenate([counts.hot, counts.cold])), np.arange(40))


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_neurons_are_hot_by_their_frequency(fraction):
    rng = np.random.default_rng(0)
    records = [rng.choice(12, rng.integers(0, 6), replace=False) for _ in range(2345)]
    counts, automatic = replay(records, 12, fraction)
    uses = np.zeros((len(records), 12), int)
    for row, ids in zip(uses, records, strict=True):
        row[ids] = 1
    assert automatic == [(uses[:n].sum(axis=0) >= int(n * fraction)).sum() for n in (1000, 2000)]
    assert np.array_equal(counts.hot_mask, uses[:2000].sum(axis=0) >= int(2000 * fraction))
    statistics = counts.statistics
    assert statistics == (automatic[-1], 12 - automatic[-1], 2345, automatic[-1] / 12)


def test_strange_ids_are_ignored_and_repeated_ones_counted():
    counts = NeuronCounts(3)
    counts.record([0, 0, 3, -1, 2, 10**12])
    assert counts.counts.tolist() == [2, 0, 1]
    counts.record([])
    assert counts.total == 2
    assert counts.hot.size == 0
    assert counts.frequency.tolist() == [1.0, 0.0, 0.5]


def test_all_are_hot_while_the_records_are_few():
    assert classify(np.zeros(3, int), 4, 0.2).all()
    assert not classify(np.zeros(3, int), 5, 0.2).any()
    assert classify(np.zeros(3, int), 1000, 0.0).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"neurons": 0}, "neurons must be at least 1"),
        ({"neurons": 1, "fraction": 1.5}, "fraction must be 0 to 1, not 1.5"),
        ({"neurons": 1, "fraction": float("nan")}, "fraction must be 0 to 1"),
        ({"neurons": 1, "records_between": 0}, "records_between must be at least 1"),
    ],
)
def test_bad_settings_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        NeuronCounts(**arguments)
