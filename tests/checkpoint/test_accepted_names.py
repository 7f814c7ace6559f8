"""Unknown overrides and options are refused with those that are known."""

from __future__ import annotations

import pytest

from sparsejax.checkpoint.accepted_names import check_options, check_overrides
from sparsejax.checkpoint.errors import AmbiguousVariantError


def test_unknown_overrides_are_refused_with_those_that_are_known():
    check_overrides({"a": 1}, ("a", "b"))
    with pytest.raises(AmbiguousVariantError, match="overrides has no 'c'; it takes 'a', 'b'") as refused:
        check_overrides({"a": 1, "c": 2}, ("a", "b"))
    assert refused.value.choices == ("a", "b")
    with pytest.raises(AmbiguousVariantError, match="no 'c'; the file tells everything itself"):
        check_overrides({"c": 2}, ())


def test_unknown_options_are_refused_with_those_that_are_known():
    check_options({"a": 1}, ("a", "b"))
    with pytest.raises(ValueError, match="apply has no option 'c', 'd'; it takes 'a', 'b'"):
        check_options({"d": 1, "c": 2}, ("a", "b"))
