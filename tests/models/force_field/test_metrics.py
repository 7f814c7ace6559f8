"""Pooled metrics are those of the whole data set, however it is cut into padded batches."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sparsejax.models.force_field.force_metrics import angular_errors, force_metrics
from sparsejax.models.force_field.losses import LossMasks
from sparsejax.models.force_field.metrics import metric_sums, pooled_metrics

SIZES = np.array([5, 1, 3, 4, 2, 6])
SUMS = jax.jit(metric_sums)


def data_set():
    rng = np.random.default_rng(0)

    def side():
        return {
            "energy": rng.normal(size=6),
            "forces": rng.normal(size=(SIZES.sum(), 3)),
            "stress": rng.normal(size=(6, 6)),
        }

    return side(), side(), np.array([True, False, True, True, False, True])


def padded(found, truth, labelled, graphs):
    """A batch of some of the graphs, padded to 4 graphs of 16 atoms with NaN."""
    starts = np.concatenate([[0], np.cumsum(SIZES)])
    atoms = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in graphs])

    def fill(values, rows):
        return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), np.nan)])

    def side(quantities):
        return {
            "energy": fill(quantities["energy"][graphs], 4),
            "forces": fill(quantities["forces"][atoms], 16),
            "stress": fill(quantities["stress"][graphs], 4),
        }

    stress_mask = np.zeros(4, bool)
    stress_mask[: len(graphs)] = labelled[graphs]
    counts = np.zeros(4, int)
    counts[: len(graphs)] = SIZES[graphs]
    masks = LossMasks(np.arange(16) < len(atoms), np.arange(4) < len(graphs), counts)
    return SUMS(side(found), side(truth) | {"stress_mask": stress_mask}, masks)


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3], [4, 5]], [[5], [4, 3, 2], [1, 0]]])
def test_pooled_metrics_are_those_of_the_whole_data_set(batches):
    found, truth, labelled = data_set()
    metrics = pooled_metrics(padded(found, truth, labelled, np.array(graphs)) for graphs in batches)
    energy = found["energy"] - truth["energy"]
    stress = (found["stress"] - truth["stress"])[labelled]
    forces = force_metrics(found["forces"], truth["forces"])
    expected = {
        "energy_rmse": np.sqrt(np.mean(energy**2)),
        "energy_mae": np.mean(np.abs(energy)),
        "energy_per_atom_rmse": np.sqrt(np.mean((energy / SIZES) ** 2)),
        "energy_per_atom_mae": np.mean(np.abs(energy) / SIZES),
        "force_rmse": forces["rmse"],
        "force_mae": forces["mae"],
        **{f"force_rmse_{axis}": forces[f"rmse_{axis}"] for axis in "xyz"},
        "force_r_squared": forces["r_squared"],
        "force_cosine": forces["cosine_similarity"],
        "angular_error_mean_deg": angular_errors(found["forces"], truth["forces"]).mean(),
        "stress_rmse": np.sqrt(np.mean(stress**2)),
        "stress_mae": np.mean(np.abs(stress)),
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=2e-6), name


def test_quantities_without_labels_are_left_out():
    found, truth, _ = data_set()
    nothing = padded(found, truth, np.zeros(6, bool), np.array([0, 1]))
    assert "stress_rmse" not in pooled_metrics([nothing])
    assert pooled_metrics([]) == {}
    energy = SUMS({"energy": np.ones(2)}, {"energy": np.zeros(2)})
    assert pooled_metrics([energy]) == {"energy_rmse": 1.0, "energy_mae": 1.0}


def test_small_angles_survive_float32():
    truth = np.array([[1.0, 0.0, 0.0]], np.float32)
    found = np.array([[1.0, 1e-4, 0.0]], np.float32)
    metrics = pooled_metrics([SUMS({"forces": found}, {"forces": truth})])
    assert metrics["angular_error_mean_deg"] == pytest.approx(np.degrees(1e-4), rel=1e-4)


def test_zero_forces_have_no_angle():
    metrics = pooled_metrics([SUMS({"forces": np.zeros((2, 3))}, {"forces": np.ones((2, 3))})])
    assert "angular_error_mean_deg" not in metrics
    assert metrics["force_rmse"] == 1.0
