"""Pictures of speed: what they show."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.plots.force_field_speed import speed_by_batch

pytest.importorskip("matplotlib")


def test_a_call_and_structures_per_second_are_drawn_by_batch():
    left, right = speed_by_batch({"Original": {4: 8.0, 1: 2.0}, "Tiny": {1: 0.5}}).axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), [[1, 2.0], [4, 8.0]])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [500, 500])
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [2000])
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["Original", "Tiny"]
