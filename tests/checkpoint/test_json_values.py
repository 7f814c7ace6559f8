"""Values that JSON has, out of whatever reports hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sparsejax.checkpoint.json_values import plain_values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([[1.5, -np.inf], [np.nan, 0.0]], np.float32), [[1.5, None], [None, 0.0]]),
        ((np.int64(3), np.bool_(True), math.inf, None, "nan"), [3, True, None, None, "nan"]),
        ({0.5: {"left out": None, "of": np.float32("nan")}}, {"0.5": {"left out": None, "of": None}}),
        (np.array(2), 2),
    ],
)
def test_everything_becomes_what_json_has(value, expected):
    assert json.loads(json.dumps(plain_values(value), allow_nan=False)) == expected
