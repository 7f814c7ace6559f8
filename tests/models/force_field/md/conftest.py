"""Float64 for all tests of molecular dynamics: oracles are exact, and one program serves many tests."""

from __future__ import annotations

import jax
import pytest

pytest.importorskip("ase")


@pytest.fixture(autouse=True)
def x64():
    """Float64 on."""
    with jax.enable_x64(True):
        yield
