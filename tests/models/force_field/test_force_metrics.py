"""Force metrics: the published numbers, and what they make of forces without a direction."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.models.force_field.force_metrics import angular_errors, force_errors_by_atom, force_metrics
from tests import golden


@pytest.mark.golden("metrics")
def test_published_force_metrics():
    arrays = golden.arrays("force_field", "metrics")
    metrics = force_metrics(arrays["pred"], arrays["ref"])
    expected = {name.removeprefix("force/"): value for name, value in arrays.items() if "force/" in name}
    by_axis = expected.pop("rmse_xyz")
    expected |= {f"rmse_{axis}": value for axis, value in zip("xyz", by_axis, strict=True)}
    assert set(metrics) - set(expected) == {"passed"}
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-9, abs=1e-9), name


@pytest.mark.golden("metrics")
def test_published_errors_by_atom():
    arrays = golden.arrays("force_field", "metrics")
    errors = force_errors_by_atom(arrays["pred"], arrays["ref"])
    for name in errors._fields:
        np.testing.assert_allclose(getattr(errors, name)[1], arrays[f"per_atom/{name}"], atol=1e-9)


def test_verdict_asks_for_all_four_limits():
    truth = np.random.default_rng(0).normal(size=(50, 3))
    assert force_metrics(truth * 1.01, truth)["passed"] == 1
    assert force_metrics(truth * 1.5, truth)["passed"] == 0
    assert force_metrics(-truth, truth)["r_squared"] == pytest.approx(-3, abs=0.2)


def test_forces_without_direction_have_no_angle():
    found, truth = np.array([[0.0, 0, 0], [0, 1, 0]]), np.array([[1.0, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(angular_errors(found, truth), [90])
    np.testing.assert_allclose(force_errors_by_atom(found, truth).angular_error, [0, 90])
    nothing = force_metrics(np.zeros((2, 3)), np.zeros((2, 3)))
    assert nothing["rmse"] == 0
    assert nothing["passed"] == 0
    undefined = ("angular_error_median", "mag_relative_error", "pearson_r", "r_squared", "cosine_similarity")
    assert all(np.isnan(nothing[name]) for name in undefined)


@pytest.mark.parametrize(("found", "truth"), [((2, 3), (3, 3)), ((2, 2), (2, 2)), ((0, 3), (0, 3))])
def test_bad_shapes_are_told_in_one_line(found, truth):
    with pytest.raises(ValueError, match=r"forces must be \(..., 3\) alike on both sides"):
        force_metrics(np.zeros(found), np.zeros(truth))
