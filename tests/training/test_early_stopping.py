"""When a history of validations is enough."""

from __future__ import annotations

import pytest

from sparsejax.training.early_stopping import exhausted


@pytest.mark.parametrize(
    ("losses", "patience", "least", "stops_after"),
    [
        ([3, 2, 1, 1.5, 1.2, 1.1], 3, 0.0, 6),
        ([3, 2, 1, 1.5, 0.9, 1.1, 1.2, 1.3], 3, 0.0, 8),
        ([3, 2, 1, 1.0, 1.0], 2, 0.0, 5),  # the same again is no improvement
        ([3, 2.95, 2.9, 2.85, 2.8], 3, 0.1, None),  # small steps that add up count, torch's "abs" threshold
        ([3, 2.95, 2.92, 2.91], 3, 0.1, 4),
        ([1, 2, 3, 4], 0, 0.0, None),
        ([], 1, 0.0, None),
    ],
)
def test_it_stops_when_patience_is_over(losses, patience, least, stops_after):
    stops = [n for n in range(len(losses) + 1) if exhausted(losses[:n], patience=patience, least=least)]
    assert (stops[0] if stops else None) == stops_after
