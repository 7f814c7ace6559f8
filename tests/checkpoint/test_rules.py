"""Conversion tables: every key is used, every target found, and the way back is exact."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint.errors import MissingKeyError, ShapeError, UnexpectedKeyError
from sparsejax.checkpoint.rules import Rule, dropped_keys, source_key, to_params, to_state
from sparsejax.checkpoint.transforms import chain, merge, split, stored_as, transpose
from sparsejax.checkpoint.tree import flatten

RULES = (
    Rule("embed.weight", "embedding"),
    Rule("layers.{i}.in.weight", "layer_{i}/in/kernel", transpose),
    Rule("layers.{i}.neurons.{n}.w", "layer_{i}/neurons", stack="n"),
    Rule("layers.{i}.qkv", ("layer_{i}/q", "layer_{i}/k", "layer_{i}/v"), split(3)),
    Rule(("layers.{i}.real", "layers.{i}.imag"), "layer_{i}/pair", merge(2)),
    Rule("layers.{i}.scale", "layer_{i}/scale", optional=True),
    Rule("head.weight", tied_to="embed.weight"),
    Rule("positions", derive=lambda state: np.arange(len(state["embed.weight"]))),
)


def state(layers=2, neurons=3, scale=True):
    rng = np.random.default_rng(0)
    values = {"embed.weight": rng.normal(size=(5, 2))}
    for i in range(layers):
        values[f"layers.{i}.in.weight"] = rng.normal(size=(4, 2))
        for n in range(neurons):
            values[f"layers.{i}.neurons.{n}.w"] = rng.normal(size=7)
        values[f"layers.{i}.qkv"] = rng.normal(size=(6, 2))
        values[f"layers.{i}.real"], values[f"layers.{i}.imag"] = rng.normal(size=(2, 3))
        if scale:
            values[f"layers.{i}.scale"] = rng.normal(size=())
    values["head.weight"] = values["embed.weight"]
    values["positions"] = np.arange(5)
    return values


def same(left, right):
    assert set(left) == set(right)
    for key, value in right.items():
        assert (left[key].dtype, left[key].shape) == (value.dtype, value.shape), key
        assert left[key].tobytes() == value.tobytes(), key


class Shape:
    def __init__(self, shape):
        self.shape = shape


def template(params):
    return {path: Shape(array.shape) for path, array in flatten(params).items()}


def test_a_table_moves_every_array_to_its_place():
    source = state()
    params = to_params(RULES, source)
    assert set(flatten(params)) == {"embedding"} | {
        f"layer_{i}/{name}"
        for i in range(2)
        for name in ("in/kernel", "neurons", "q", "k", "v", "pair", "scale")
    }
    np.testing.assert_array_equal(params["layer_1"]["in"]["kernel"], source["layers.1.in.weight"].T)
    np.testing.assert_array_equal(params["layer_1"]["neurons"][2], source["layers.1.neurons.2.w"])
    np.testing.assert_array_equal(params["layer_0"]["k"], source["layers.0.qkv"][2:4])
    np.testing.assert_array_equal(params["layer_0"]["pair"][3:], source["layers.0.imag"])


@pytest.mark.parametrize("scale", [True, False])
def test_there_and_back_is_exact(scale):
    source = state(scale=scale)
    params = to_params(RULES, source)
    back = to_state(RULES, params)
    same(back, source)
    same(flatten(to_params(RULES, back)), flatten(params))


def test_the_way_back_follows_the_order_of_the_rules():
    assert list(to_state(RULES[::-1], to_params(RULES, state(1, 1))))[:2] == ["positions", "head.weight"]
    rules = (Rule("size", derive=lambda s: np.array(len(s["w"]))), Rule("w", "w"))
    assert list(to_state(rules, {"w": np.ones(3)})) == ["size", "w"]


# Hypothesis tables: names are disjoint by construction, all else is random.

_KINDS = {
    "plain": lambda n: Rule(f"plain{n}.x", f"p{n}/x"),
    "transposed": lambda n: Rule(f"t{n}.w", f"t{n}/kernel", transpose),
    "narrowed": lambda n: Rule(f"narrow{n}.i", f"n{n}/i", stored_as("int64")),
    "indexed": lambda n: Rule(f"blocks{n}.{{i}}.a.{{j}}", f"b{n}_{{i}}/a_{{j}}"),
    "stacked": lambda n: Rule(f"s{n}.{{i}}.{{k}}.w", f"s{n}_{{i}}/w", transpose, stack="k"),
    "cut": lambda n: Rule(f"cut{n}", (f"c{n}/a", f"c{n}/b"), chain(split([2, 4], axis=-1), transpose)),
    "joined": lambda n: Rule((f"j{n}.{{i}}.re", f"j{n}.{{i}}.im"), f"j{n}_{{i}}/both", merge(2)),
    "joined_stack": lambda n: Rule(
        (f"js{n}.{{k}}.re", f"js{n}.{{k}}.im"), f"js{n}/both", merge(2, axis=1), stack="k"
    ),
    "maybe": lambda n: Rule(f"maybe{n}", f"m{n}", optional=True),
}


def _keys(rule, counts):
    """All keys that a rule has with these numbers of i, j and k."""
    keys = []
    for source in rule.sources:
        names = [name for name in "ijk" if f"{{{name}}}" in source]
        for combination in np.ndindex(*(counts[name] for name in names)):
            keys.append(source.format(**dict(zip(names, combination, strict=True))))
    return keys


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(_KINDS)), min_size=1, max_size=6))
    rules = [_KINDS[kind](number) for number, kind in enumerate(kinds)]
    counts = {name: draw(st.integers(1, 3)) for name in "ijk"}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = {}
    for kind, rule in zip(kinds, rules, strict=True):
        if kind == "maybe" and draw(st.booleans()):
            continue
        dtype = np.int64 if kind == "narrowed" else draw(st.sampled_from([np.float32, np.float64, np.int8]))
        for key in _keys(rule, counts):
            values[key] = rng.integers(-99, 99, (4, 6)).astype(dtype)
    plain = [key for key in values if key.startswith("plain")]
    if plain and draw(st.booleans()):
        rules.append(Rule("twin", tied_to=plain[0]))
        values["twin"] = values[plain[0]]
    if plain and draw(st.booleans()):
        rules.append(Rule("count", derive=lambda s, key=plain[0]: np.array(s[key].size, np.int64)))
        values["count"] = np.array(24, np.int64)
    return tuple(draw(st.permutations(rules))), dict(draw(st.permutations(list(values.items()))))


@given(tables())
def test_random_tables_round_trip_bit_for_bit(table):
    rules, source = table
    params = to_params(rules, source)
    same(to_state(rules, params), source)
    same(flatten(to_params(rules, to_state(rules, params), template(params))), flatten(params))


@given(tables(), st.data())
def test_random_tables_notice_a_missing_and_a_foreign_key(table, data):
    rules, source = table
    if not source:
        return
    shapes = template(to_params(rules, source))
    key = data.draw(st.sampled_from(sorted(source)))
    with pytest.raises((MissingKeyError, ShapeError)) as caught:  # the last of a stack leaves a shorter stack
        to_params(rules, {name: value for name, value in source.items() if name != key}, shapes)
    if caught.type is MissingKeyError:
        assert repr(key) in str(caught.value) or ".*." in str(caught.value)
    with pytest.raises(UnexpectedKeyError, match="'foreign'"):
        to_params(rules, source | {"foreign": np.zeros(2)}, shapes)


# Errors


@pytest.mark.parametrize(
    "key",
    [
        *("embed.weight", "layers.1.in.weight", "layers.0.qkv", "layers.1.imag", "layers.1.neurons.1.w"),
        *("head.weight", "positions"),
    ],
)
def test_a_missing_key_is_named(key):
    source = state()
    shapes = template(to_params(RULES, source))
    del source[key]
    with pytest.raises(MissingKeyError, match="save the whole state dict") as caught:
        to_params(RULES, source, shapes)
    assert repr(key) in str(caught.value)


def test_a_missing_layer_is_named_although_no_rule_knows_how_many_there_are():
    shapes = template(to_params(RULES, state(layers=3)))
    with pytest.raises(MissingKeyError) as caught:
        to_params(RULES, state(layers=2), shapes)
    assert "'layers.2.in.weight'" in str(caught.value) and "'layers.2.neurons.*.w'" in str(caught.value)
    with pytest.raises(UnexpectedKeyError, match=r"no place for 'layers.2.in.weight'.*remove"):
        to_params(RULES, state(layers=3), template(to_params(RULES, state(layers=2))))


@pytest.mark.parametrize(
    "key", ["w3", "layers.01.qkv", "layers.-1.qkv", "layers.x.qkv", "layers.١.qkv", "Xembed.weight"]
)
def test_an_unused_key_is_named(key):
    with pytest.raises(UnexpectedKeyError) as caught:
        to_params(RULES, state() | {key: np.zeros(2)})
    assert repr(key) in str(caught.value) and "remove" in str(caught.value)


def test_many_unused_keys_are_counted():
    with pytest.raises(UnexpectedKeyError, match="'x4' and 3 more"):
        to_params(RULES, state() | {f"x{n}": np.zeros(1) for n in range(8)})


def test_a_wrong_shape_names_key_path_and_both_shapes():
    source = state()
    shapes = template(to_params(RULES, source))
    source["layers.1.in.weight"] = np.zeros((9, 2))
    with pytest.raises(ShapeError) as caught:
        to_params(RULES, source, shapes)
    for word in ("'layers.1.in.weight'", "layer_1/in/kernel", "(2, 9)", "(2, 4)"):
        assert word in str(caught.value)


def test_a_stack_of_unequal_shapes_names_the_odd_one():
    source = state() | {"layers.0.neurons.1.w": np.zeros(8)}
    with pytest.raises(
        ShapeError, match=r"'layers.0.neurons.1.w' has shape \(8,\), its first sibling \(7,\)"
    ):
        to_params(RULES, source)


def test_a_transform_that_does_not_fit_names_the_key():
    with pytest.raises(ShapeError, match=r"'layers.0.qkv'.*\(split\)"):
        to_params(RULES, state() | {"layers.0.qkv": np.zeros((7, 2))})
    with pytest.raises(ShapeError, match=r"'i'.*stored as int64"):
        to_params((Rule("i", "i", stored_as("int64")),), {"i": np.array([0.5])})
    with pytest.raises(ShapeError, match="'w'"):
        to_params((Rule("w", "w", transpose),), {"w": np.zeros(3)})


def test_a_second_copy_that_differs_is_refused():
    source = state()
    source["head.weight"] = source["embed.weight"] + 1
    with pytest.raises(UnexpectedKeyError, match="'head.weight' differs"):
        to_params(RULES, source)
    with pytest.raises(UnexpectedKeyError, match="'positions' differs"):
        to_params(RULES, state() | {"positions": np.arange(5)[::-1]})


def test_a_second_copy_may_hold_nan():
    source = state()
    source["embed.weight"] = source["head.weight"] = np.full((5, 2), np.nan)
    assert np.isnan(to_params(RULES, source)["embedding"]).all(), "finiteness is for `materialise` to judge"


def test_a_forged_index_costs_neither_time_nor_memory():
    start = time.perf_counter()
    with pytest.raises(MissingKeyError, match="'layers.0.neurons.3.w'"):
        to_params(RULES, state() | {"layers.0.neurons.999999999.w": np.zeros(7)})
    for digits in (10, 5000):
        with pytest.raises(UnexpectedKeyError):
            to_params(RULES, state() | {f"layers.0.neurons.{'9' * digits}.w": np.zeros(7)})
    assert time.perf_counter() - start < 1


def test_parameters_that_a_layout_lacks_are_named():
    params = to_params(RULES, state())
    with pytest.raises(UnexpectedKeyError, match="no key for the parameters 'layer_0/extra'"):
        to_state(RULES, params | {"layer_0": params["layer_0"] | {"extra": np.zeros(1)}})
    del params["layer_1"]["k"]
    with pytest.raises(MissingKeyError, match="'layer_1/k'"):
        to_state(RULES, params)


def test_dropped_keys_are_the_tied_and_the_derived():
    source = state()
    assert dropped_keys(RULES, source) == ("head.weight", "positions")
    params = to_params(RULES, source)
    back = to_state(RULES, params, dropped=["head.weight"])
    assert "positions" not in back
    assert back["head.weight"] is back["embed.weight"], "tied: one array"
    assert set(to_state(RULES, params, dropped=())) == set(source) - {"head.weight", "positions"}


def test_keys_that_cannot_be_restored_are_named():
    params = to_params(RULES, state())
    with pytest.raises(UnexpectedKeyError, match="no rule of this layout restores 'layers.0.bias'"):
        to_state(RULES, params, dropped=["layers.0.bias"])
    count = Rule("count", derive=lambda found: np.asarray(len(found["layers.0.in.weight"])))
    with pytest.raises(MissingKeyError, match="'layers.0.in.weight'"):
        to_params((Rule("w", "w"), count), {"w": np.zeros(2), "count": np.asarray(4)})


def test_tied_layers_come_back_one_by_one():
    rules = (Rule("a.{i}.w", "a_{i}"), Rule("b.{i}.w", tied_to="a.{i}.w"))
    source = {f"{name}.{i}.w": np.full(2, i) for i in range(3) for name in "ab"}
    same(to_state(rules, to_params(rules, source)), source)
    with pytest.raises(MissingKeyError, match=r"'a.3.w'"):
        to_params(rules, source | {"b.3.w": np.zeros(2)})


def test_source_key_tells_a_user_where_a_parameter_comes_from():
    assert source_key(RULES, "layer_4/in/kernel") == "layers.4.in.weight"
    assert source_key(RULES, "layer_4/neurons") == "layers.4.neurons.*.w"
    assert source_key(RULES, "layer_4/v") == "layers.4.qkv"
    assert source_key(RULES, "layer_4/pair") == "layers.4.real"
    assert source_key(RULES, "nowhere") == "nowhere"


def test_transforms_hand_out_views_of_the_source():
    source = state()
    params = to_params(RULES, source)
    assert np.shares_memory(params["layer_0"]["in"]["kernel"], source["layers.0.in.weight"])
    assert np.shares_memory(params["layer_0"]["q"], source["layers.0.qkv"])


def test_a_derived_key_cannot_have_a_placeholder():
    with pytest.raises(ValueError, match="one rule per key"):
        Rule("layers.{i}.positions", derive=lambda state: np.arange(2))
