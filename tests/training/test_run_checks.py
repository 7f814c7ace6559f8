"""Settings that no run can have are refused by their names on the command line."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest

from sparsejax.training.checksums import checksum
from sparsejax.training.run_checks import check_at_least, check_libraries, check_seed


@pytest.mark.parametrize("value", [0, -3, 0.5, math.nan, math.inf, -math.inf])
def test_a_number_that_is_too_small_or_not_finite_is_told(value):
    settings = SimpleNamespace(steps=5, max_samples=None, save_every=value)
    check_at_least(settings, 1, "steps", "max_samples")
    with pytest.raises(ValueError, match=rf"^--save-every must be at least 1, not {value}$"):
        check_at_least(settings, 1, "steps", "max_samples", "save_every")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_have_32_bits(seed):
    check_seed(2**32 - 1)
    with pytest.raises(ValueError, match="--seed must be between 0 and 2"):
        check_seed(seed)


def test_missing_libraries_are_told_before_they_are_needed(monkeypatch):
    missing = {"grain", "matplotlib"}
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else real(name))
    with pytest.raises(ModuleNotFoundError, match="training on text needs grain") as error:
        check_libraries("training on text", "numpy", "grain", plots=True)
    assert error.value.name == "grain"
    with pytest.raises(ValueError, match=r"pip install 'sparsejax\[plots\]', or give --no-plots"):
        check_libraries("training on text", "numpy", plots=True)
    check_libraries("training on text", "numpy", plots=False)


def test_a_checksum_minds_every_value_and_their_order():
    numbers = np.arange(12, dtype=np.int32)
    whole = checksum(numbers, "name")
    assert checksum(numbers.reshape(3, 4)[:, ::1], "name") == whole
    assert checksum(numbers[:5], numbers[5:], "name") == whole
    assert len({whole, checksum(numbers[::-1], "name"), checksum(numbers, "names"), checksum("name")}) == 4
