"""Packages that import their names when they are used still list them."""

from __future__ import annotations

import pytest

from sparsejax.models import sparse_inference, ultra_sparse


@pytest.mark.parametrize("family", [sparse_inference, ultra_sparse], ids=lambda family: family.__name__)
def test_public_names_are_listed(family):
    assert dir(family) == sorted(family.__all__)
    with pytest.raises(AttributeError, match=f"module '{family.__name__}' has no attribute 'nothing'"):
        family.nothing  # noqa: B018
