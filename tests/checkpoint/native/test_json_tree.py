"""Any tree of a torch file comes back equal in type and bit."""

from __future__ import annotations

import collections
import json
import math
import struct
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.checkpoint.errors import CheckpointError, CorruptFileError
from sparsejax.checkpoint.native import json_tree


class Size(tuple):
    pass


class Device(str):
    pass


TYPES = {"Size": Size, "Device": Device}


def round_trip(tree):
    node, arrays = json_tree.encode(tree, TYPES)
    assert all(array.dtype == np.uint8 and array.ndim == 1 and array.size for array in arrays)
    return json_tree.decode(json.loads(json.dumps(node, allow_nan=False)), arrays, TYPES)


def same(left, right):
    """Equality that sees types, NaN, signed zeros, byte order, shapes and the order of dicts."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, complex):
        return same((left.real, left.imag), (right.real, right.imag))
    return struct.pack(">d", left) == struct.pack(">d", right) if isinstance(left, float) else left == right


SCALARS = [
    *(None, True, False, 0, -1, 2**62, -(2**63), 2**63, -(3**200), 10**5000),
    *(0.0, -0.0, 0.1, 1e308, 5e-324, math.inf, -math.inf, math.nan, -math.nan),
    *("", "é\n\0", "\ud800", b"", b"\0\xff", bytearray(b"ab"), 1 - 2j, complex(-0.0, math.nan)),
]


@pytest.mark.parametrize(
    "value", SCALARS, ids=lambda value: repr(value)[:30] if value != 10**5000 else "huge"
)
def test_scalar_comes_back_exactly(value):
    assert same(round_trip(value), value)


CONTAINERS = {
    "empty": [{}, [], (), set(), frozenset(), collections.OrderedDict()],
    "tuple in list": [(1, [2, (3,)])],
    "sets": [{1, "a", (2, 3)}, frozenset({b"x"})],
    "other keys": {0: "a", (1, "b"): 2, None: 3, True: 4, 2.5: 5, b"k": 6, "s": 7},
    "ordered": collections.OrderedDict([("b", 1), ("a", {"z": 1, "y": 2})]),
    "like a tag": [{"tuple": [1]}, {"float": "nan"}, {"array": [0]}, {"dict": {"dict": {}}}],
    "registered": {"s": Size((1, 2)), "d": Device("cuda:0"), Device("k"): Size()},
    "optimizer": {
        "state": {0: {"step": np.float32(3), "m": np.ones((2, 2))}},
        "param_groups": [{"lr": 1e-3}],
    },
}


@pytest.mark.parametrize("tree", CONTAINERS.values(), ids=CONTAINERS)
def test_container_comes_back_with_types_and_order(tree):
    assert same(round_trip(tree), tree)


DTYPES = [
    *("bool", "int8", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"),
    *("complex64", "complex128", ">f4", ">i8", "<U3", "S2", "datetime64[ms]", "timedelta64[s]", "V3"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4, ml_dtypes.uint4),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3)], ids=str)
def test_array_and_scalar_of_any_dtype_come_back_exactly(dtype, shape):
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    array = np.frombuffer(bytes(i % 2 for i in range(size)), dtype).reshape(shape)
    assert same(round_trip(array), array)
    assert same(round_trip(array.T), array.T)
    for value in array.reshape(-1)[:1]:
        assert same(round_trip({"x": value}), {"x": value})


def test_array_in_two_places_is_stored_once():
    array = np.arange(4.0)
    tree = round_trip([array, {"again": array}, array[:2]])
    assert tree[0] is tree[1]["again"]
    assert len(json_tree.encode([array, array])[1]) == 1
    np.testing.assert_array_equal(tree[2], [0, 1])


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
)
KEYS = st.integers() | st.text() | st.booleans() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(Size)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(collections.OrderedDict)
    ),
)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_any_tree_comes_back(tree):
    assert same(round_trip(tree), tree)


@pytest.fixture
def deep_stack():
    """Room for the frames of the checks, some for each call of the library."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5 * limit)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("deep_stack")
def test_deepest_tree_comes_back_and_one_level_more_is_refused():
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: {0: x}):
        tree = 1
        for _ in range(json_tree.MAX_DEPTH):
            tree = wrap(tree)
        assert same(round_trip(tree), tree)
        with pytest.raises(CheckpointError, match="nests deeper than 100 levels"):
            json_tree.encode(wrap(tree))


def cyclic():
    tree = []
    tree.append(tree)
    return tree


def unfolding():
    tree = []
    for _ in range(50):
        tree = [tree, tree]
    return tree


REFUSED = {
    "object": ({"a": [object()]}, r"at \['a'\]\[0\]: builtins.object cannot be stored"),
    "at the top": (object(), "at the top: builtins.object"),
    "in a key": ({"a": {(1, len): 2}}, r"at \['a'\]\[.*\]\[1\]: builtins.builtin_function"),
    "unregistered subclass": ([collections.Counter()], r"at \[0\]: collections.Counter"),
    "objects in an array": ([np.array([None])], r"at \[0\]: a NumPy array of dtype object"),
    "structured": ({"x": np.zeros(2, "i4,f4")}, r"at \['x'\]: a NumPy array of dtype"),
    "masked": ([np.ma.masked_array([1])], "MaskedArray"),
    "cycle": (cyclic(), "contains itself"),
    "unfolds": (unfolding(), "more than 1000 values"),
}


@pytest.mark.parametrize(("tree", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_named_with_its_place(tree, message, monkeypatch):
    monkeypatch.setattr(json_tree, "MAX_VALUES", 1000)
    with pytest.raises(CheckpointError, match=message) as caught:
        json_tree.encode(tree)
    assert "\n" not in str(caught.value)


DAMAGED = [
    *({}, {"tuple": 3}, {"nonsense": []}, {"tuple": [], "set": []}, {"bytes": "?"}, {"float": "00"}),
    *({"int": "zz"}, {"array": ["f4", [3], 0]}, {"array": ["f4", [1], 9]}, {"array": ["wrong", [0], None]}),
    *(
        {"type": ["Unknown", ""]},
        {"set": [[1]]},
        {"items": [[1]]},
        {"scalar": ["f4", "00"]},
        {"complex": [1, 2, 3]},
    ),
]


@pytest.mark.parametrize("node", DAMAGED, ids=str)
def test_damaged_json_is_reported_as_such(node):
    with pytest.raises(CorruptFileError, match="not a tree written by sparsejax"):
        json_tree.decode(node, [np.zeros(5, np.uint8)], TYPES)
