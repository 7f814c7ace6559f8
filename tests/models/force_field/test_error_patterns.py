"""Errors by element, length and angle: counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparsejax.models.force_field.error_patterns import angle_shares, errors_by_element, errors_by_magnitude

TRUTH = np.array([[0.05, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [30.0, 0, 0]])
FOUND = np.array([[0.05, 0, 0], [0, 2.3, 0], [2.0, 0, 0], [30.0, 0, 0]])


def test_groups_by_element_are_those_of_their_atoms():
    hydrogen, carbon = errors_by_element(FOUND, TRUTH, [6, 1, 1, 6])
    assert (hydrogen.name, hydrogen.atoms, carbon.name, carbon.atoms) == ("H", 2, "C", 2)
    assert hydrogen.rmse == pytest.approx(math.sqrt((0.3**2 + 8) / 6))
    assert hydrogen.mae == pytest.approx(4.3 / 6)
    assert hydrogen.relative == pytest.approx(hydrogen.rmse / math.sqrt(8 / 6))
    assert hydrogen.bias == pytest.approx(0.15) and hydrogen.angle == pytest.approx(45)
    assert carbon.rmse == 0 and carbon.angle == 0
    with pytest.raises(ValueError, match="species must be"):
        errors_by_element(FOUND, TRUTH, [1, 6])


def test_groups_by_length_take_the_lower_border_in():
    groups = errors_by_magnitude(FOUND, TRUTH, (0, 0.05, 2.0, np.inf))
    assert [(group.name, group.atoms) for group in groups] == [("0.05 to 2", 1), ("above 2", 3)]
    names = {group.name: group.atoms for group in errors_by_magnitude(FOUND, TRUTH)}
    assert names == {"0 to 0.1": 1, "1 to 3": 2, "above 10": 1}


def test_angles_are_shares_of_those_with_a_direction():
    shares = angle_shares([*FOUND, [1.0, 0, 0]], [*TRUTH, [0.0, 0, 0]])
    assert shares == {"0 to 10": 0.75, "10 to 30": 0, "30 to 60": 0, "60 to 90": 0, "90 to 180": 0.25}
    assert angle_shares([[0.0, 0, 0]], [[0.0, 0, 0]]) == {}


def test_what_is_not_defined_is_null_in_json():
    (group,) = errors_by_element([[0.0, 0, 0]], [[0.0, 0, 0]], [1])
    told = group.to_json()
    assert told["relative"] is None and told["angle"] is None and told["rmse"] == 0
    with pytest.raises(ValueError, match=r"forces must be \(..., 3\)"):
        errors_by_magnitude([[0.0, 0]], [[0.0, 0]])
