"""``NAME=VALUE`` arguments."""

from __future__ import annotations

import pytest

from sparsejax.training.options import check_options, parse_options


def test_values_are_json_or_text():
    pairs = ["leak-free=TRUE", "samples=50", "recipe=readme", "true_features=[1, 2]", "noise=1e-3", "a=b=c"]
    assert parse_options(pairs, "--x") == {
        "leak_free": True,
        "samples": 50,
        "recipe": "readme",
        "true_features": [1, 2],
        "noise": 1e-3,
        "a": "b=c",
    }


@pytest.mark.parametrize("pairs", [["a"], ["=1"], ["a=1", "a=2"]])
def test_unclear_pairs_are_refused(pairs):
    with pytest.raises(ValueError, match="--x"):
        parse_options(pairs, "--x")


@pytest.mark.parametrize(
    ("value", "default"),
    [("yes", False), (1, True), (True, 1), (1.5, 1), ("1", 0.5), (float("nan"), 0.5), (3, "text"), (3, (1,))],
)
def test_values_of_another_kind_are_refused(value, default):
    with pytest.raises(ValueError, match="problem 'p': option 'a' is"):
        check_options({"a": value}, {"a": default}, "problem 'p'")


def test_any_value_goes_where_nothing_is_the_default():
    for value in (3, "text", [1], None):
        check_options({"a": value}, {"a": None}, "problem 'p'")


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(ValueError, match="has no option 'sample'; near it: samples"):
        check_options({"sample": 1}, {"samples": 2, "noise": 0.1}, "problem 'p'")
    check_options({"samples": 3, "noise": 1}, {"samples": 2, "noise": 0.1}, "problem 'p'")
