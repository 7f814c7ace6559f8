"""Sizes read off a file: what is missing, left out or empty is told by name."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.checkpoint.errors import CorruptFileError, MissingKeyError
from sparsejax.checkpoint.sizes import count_parts, require, shape_of

TENSORS = {"layers.0.w": np.zeros((2, 3)), "layers.1.w": np.zeros((0, 3)), "heads.0": np.zeros(1)}


def test_sizes_that_are_there():
    require(TENSORS, TENSORS)
    assert shape_of(TENSORS, "layers.0.w", 2) == (2, 3)
    assert count_parts(TENSORS, "layers") == 2 and count_parts(TENSORS, "heads") == 1


def test_what_is_missing_is_named():
    with pytest.raises(MissingKeyError, match="'a', 'b'"):
        require(TENSORS, ["a", "layers.0.w", "b"])
    with pytest.raises(MissingKeyError, match=r"'layers\.2\.w'"):
        shape_of(TENSORS, "layers.2.w", 2)


@pytest.mark.parametrize(("keys", "words"), [(["l.1.w", "l.2.w"], r"'l\.0'"), (["l.01", "m.0"], r"'l\.0'")])
def test_numbers_begin_at_zero_and_leave_none_out(keys, words):
    with pytest.raises(MissingKeyError, match=words):
        count_parts(dict.fromkeys(keys), "l")


@pytest.mark.parametrize(("key", "axes"), [("layers.0.w", 1), ("layers.1.w", 2)])
def test_other_or_empty_axes_are_refused(key, axes):
    with pytest.raises(CorruptFileError, match=f"'{key}' has shape"):
        shape_of(TENSORS, key, axes)
