"""State dicts are found, unwrapped and wrapped again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint.container import (
    CONTAINERS,
    PREFIXES,
    Layout,
    common_prefix,
    pack,
    same_tensor,
    unpack,
)
from sparsejax.checkpoint.errors import UnexpectedKeyError, UnknownFormatError

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
INDEX = np.arange(3)

names = st.text(st.sampled_from("abcxyz_."), min_size=1, max_size=6)


def equal(left, right):
    """Same structure, order, and array bits."""
    if isinstance(right, np.ndarray):
        return isinstance(left, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(right, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in right)
    return type(left) is type(right) and left == right


@given(
    st.dictionaries(names, st.sampled_from([WEIGHT, INDEX]), min_size=1, max_size=5),
    st.dictionaries(names, st.none() | st.integers() | st.just({"a": [1]}) | st.just(INDEX + 1), max_size=3),
    st.lists(st.sampled_from(PREFIXES), max_size=3),
    st.sampled_from(CONTAINERS),
    st.data(),
)
def test_unpack_and_pack_undo_each_other(state, beside, wrappers, container, data):
    prefix = "".join(wrappers)
    inner = {prefix + key: value.copy() for key, value in state.items()}
    items = data.draw(st.permutations([*beside.items(), (container, inner)]))
    tree = dict(items)
    found, metadata, layout = unpack(tree, "zip")
    assert layout.prefix.startswith(prefix), "all of it; more only if the names themselves begin like it"
    assert [layout.prefix + key for key in found] == list(inner)
    assert metadata.keys() == beside.keys()
    assert equal(pack(found, metadata, layout), tree)
    assert equal(pack(found, metadata, Layout.from_json(json.loads(json.dumps(layout.to_json())))), tree)


@given(
    st.dictionaries(names, st.sampled_from([WEIGHT, INDEX]), min_size=1, max_size=4),
    st.dictionaries(names, st.none() | st.integers() | st.text(), max_size=3),
    st.data(),
)
def test_a_bare_state_dict_keeps_its_order_among_other_values(state, beside, data):
    tree = dict(data.draw(st.permutations([*beside.items(), *state.items()])))
    if not any(isinstance(value, np.ndarray) for value in tree.values()):
        return
    found, metadata, layout = unpack(tree, "zip")
    assert layout.container is None
    assert equal(pack(found, metadata, layout), tree)


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (["w", "b"], ""),
        (["model.w", "model.b"], "model."),
        (["model.w", "b"], ""),
        (["module.model.w", "module.model.b"], "module.model."),
        (["_orig_mod.module.w", "_orig_mod.module.b"], "_orig_mod.module."),
        (["module.module.w"], "module.module."),
        (["layers.module.w"], ""),
        (["models.w"], ""),
        ([], ""),
    ],
)
def test_wrapper_prefixes_stand_at_the_front_of_every_key(keys, prefix):
    assert common_prefix(dict.fromkeys(keys)) == prefix


def test_integers_that_jax_narrows_get_their_dtype_back():
    found, metadata, layout = unpack({"w": WEIGHT, "i": INDEX}, "zip")
    assert layout.integer_dtypes == {"i": "int64"}
    narrowed = {"w": WEIGHT, "i": INDEX.astype(np.int32)}
    assert equal(pack(narrowed, metadata, layout), {"w": WEIGHT, "i": INDEX})


def test_a_copy_is_not_the_same_tensor():
    tied = {"a": WEIGHT, "b": WEIGHT, "c": WEIGHT.copy()}
    assert same_tensor(tied["a"], tied["b"]) and not same_tensor(tied["a"], tied["c"])


def test_a_tensor_that_lies_beside_its_state_dict_again_is_remembered_as_tied():
    tree = {"state_dict": {"i": INDEX, "w": WEIGHT}, "copy": INDEX, "other": INDEX.copy()}
    found, metadata, layout = unpack(tree, "zip")
    assert layout.ties == {"copy": "i"}
    changed = found | {"i": np.array([9, 9, 9], np.int32)}
    again = pack(changed, metadata, layout)
    assert again["copy"] is again["state_dict"]["i"], "one array, so that it is stored once"
    assert again["copy"].tolist() == [9, 9, 9] and again["copy"].dtype == np.int64
    assert again["other"].tolist() == [0, 1, 2]


def test_keys_that_the_file_did_not_have_come_last():
    found, metadata, layout = unpack({"b": WEIGHT, "a": WEIGHT}, "zip")
    assert list(pack({"new": WEIGHT, **found}, metadata, layout)) == ["b", "a", "new"]


def test_the_first_container_wins_and_the_other_stays_beside_it():
    found, metadata, layout = unpack({"model_state_dict": {"a": WEIGHT}, "state_dict": {"b": WEIGHT}}, "zip")
    assert layout.container == "state_dict" and list(found) == ["b"]
    assert list(metadata) == ["model_state_dict"]


def test_a_container_name_that_holds_no_mapping_is_metadata():
    found, metadata, layout = unpack({"state_dict": 3, "w": WEIGHT}, "zip")
    assert layout.container is None and list(found) == ["w"] and metadata == {"state_dict": 3}


@pytest.mark.parametrize("tree", [[WEIGHT], WEIGHT, "text", None, 3, (1, 2)])
def test_what_is_no_dict_is_told_by_its_type(tree):
    with pytest.raises(UnknownFormatError, match=f"holds a {type(tree).__name__}"):
        unpack(tree, "zip")


@pytest.mark.parametrize("tree", [{}, {"epoch": 3}, {1: WEIGHT}, {"a": {"b": WEIGHT}}])
def test_a_dict_without_tensors_names_what_it_holds_and_where_to_put_them(tree):
    with pytest.raises(UnknownFormatError, match="'state_dict', 'model_state_dict'") as caught:
        unpack(tree, "zip")
    assert all(str(key) in str(caught.value) for key in tree)


@pytest.mark.parametrize(
    "stranger", [{"lr": 0.1}, {"nested": {"w": WEIGHT}}, {"scalar": np.float32(1)}, {7: WEIGHT}]
)
def test_a_state_dict_holds_nothing_but_named_tensors(stranger):
    with pytest.raises(UnexpectedKeyError) as caught:
        unpack({"state_dict": {"w": WEIGHT, **stranger}}, "zip")
    assert all(repr(key) in str(caught.value) for key in stranger)
