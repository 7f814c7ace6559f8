"""Copies equal their sources, whatever the strides; no NaN slips through, no finite value is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsejax.checkpoint import materialise as room
from sparsejax.checkpoint.errors import CorruptFileError, NonFiniteError
from sparsejax.checkpoint.materialise import all_finite, materialise
from sparsejax.checkpoint.torch_format.storages import aligned_empty

FLOATS = [
    *("float64", "float32", "float16", "complex64", "complex128"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
CLIPPED = {np.dtype(ml_dtypes.float8_e4m3fn)}  # has NaN, but no infinity


@pytest.fixture
def small_tasks(monkeypatch):
    """Chunks, blocks and tasks of a few elements, so that small arrays meet every edge."""
    monkeypatch.setattr(room, "_TASK_BYTES", 64)
    monkeypatch.setattr(room, "_CHUNK_BYTES", 16)
    monkeypatch.setattr(room, "_BLOCK", 3)


def bits(array):
    return np.ascontiguousarray(array).tobytes()


@st.composite
def strided(draw, dtypes=FLOATS + INTEGERS):
    """An array of any strides: transposed, reversed, cut, broadcast."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    array = (np.arange(int(np.prod(shape))) % 100).astype(dtype).reshape(shape)  # finite in every type
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    steps = tuple(slice(None, None, draw(st.sampled_from([1, -1, 2, -2]))) for _ in range(array.ndim))
    array = array[steps]
    if array.ndim and draw(st.booleans()):
        array = np.broadcast_to(array, (draw(st.integers(1, 5)), *array.shape))
    return array


def check_copy(copy, source):
    assert (copy.dtype, copy.shape) == (source.dtype, source.shape)
    assert bits(copy) == bits(source)
    assert copy.flags.c_contiguous and copy.flags.writeable
    assert copy.ctypes.data % 64 == 0 or not copy.size
    assert not np.shares_memory(copy, source)


@given(st.lists(strided(), max_size=4))
def test_copies_equal_their_sources(arrays):
    named = {str(number): array for number, array in enumerate(arrays)}
    copies = materialise(named)
    assert list(copies) == list(named)
    for name, source in named.items():
        check_copy(copies[name], source)


@settings(max_examples=60)
@given(st.data())
def test_copies_equal_their_sources_at_every_edge_of_a_task(data):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_TASK_BYTES", 64), ("_CHUNK_BYTES", 16), ("_BLOCK", 3)):
            patch.setattr(room, name, value)
        source = data.draw(strided())
        check_copy(materialise({"w": source})["w"], source)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "three_dimensional"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_bad_value_is_found_wherever_it_lies(small_tasks, dtype, layout, value):
    if np.dtype(dtype) in CLIPPED and np.isinf(value):
        pytest.skip("this type has no infinity")
    shape = (4, 5, 3) if layout == "three_dimensional" else (7, 5)
    for place in range(0, int(np.prod(shape)), 3):
        array = np.ones(shape, dtype)
        array.flat[place] = value
        array = array if layout == "contiguous" else array.T
        with pytest.raises(NonFiniteError, match=f"^1 of {array.size} values of 'w'"):
            materialise({"fine": np.ones(3), "w": array})


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("value", [complex(0, np.nan), complex(np.inf, 0), complex(1, -np.inf)])
def test_half_of_a_complex_value_is_enough(dtype, value):
    with pytest.raises(NonFiniteError):
        materialise({"w": np.array([1, value, 2], dtype)})


@given(st.data())
def test_infinities_of_both_signs_do_not_cancel(data):
    dtype = np.dtype(data.draw(st.sampled_from([d for d in FLOATS if np.dtype(d) not in CLIPPED])))
    values = data.draw(st.lists(st.sampled_from([0.0, 1.0, np.inf, -np.inf, np.nan]), min_size=1, max_size=8))
    assert all_finite(np.array(values, dtype)) == all(np.isfinite(values))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_finite_values_whose_sum_overflows_are_accepted(dtype):
    kind = np.dtype(dtype)
    info = ml_dtypes.finfo(kind.type(0).real.dtype if kind.kind == "c" else kind)
    array = np.full(300, info.max, dtype)
    assert all_finite(array)
    check_copy(materialise({"w": array})["w"], array)


@pytest.mark.parametrize("dtype", [*INTEGERS, "uint64", ml_dtypes.int4, ml_dtypes.uint4], ids=str)
def test_integers_are_always_finite(dtype):
    array = np.ones(9, dtype)
    assert all_finite(array)
    check_copy(materialise({"w": array})["w"], array)


def test_bad_values_are_counted_and_named_as_the_file_names_them():
    array = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    with pytest.raises(NonFiniteError, match="2 of 4 values of 'layers.0.w' are NaN or infinite"):
        materialise({"layer_0/w": array}, labels={"layer_0/w": "layers.0.w"})
    copy = materialise({"w": array}, finite=False)["w"]
    np.testing.assert_array_equal(copy, array)


def test_checks_run_beside_the_copies_and_their_errors_come_through():
    ran = []
    materialise({"w": np.ones(3)}, [lambda: ran.append(1), lambda: ran.append(2)])
    assert sorted(ran) == [1, 2]

    def fail():
        raise CorruptFileError("checksum")

    with pytest.raises(CorruptFileError, match="checksum"):
        materialise({"w": np.ones(3)}, [fail])
    with pytest.raises(CorruptFileError):
        materialise({}, [fail])


@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0), st.sampled_from(FLOATS + INTEGERS))
def test_aligned_memory_has_the_asked_shape(shape, dtype):
    array = aligned_empty(shape, np.dtype(dtype))
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0 or not array.size


def test_jax_takes_the_copies_over_without_another_one():
    import jax

    copy = materialise({"w": np.arange(1000.0, dtype=np.float32)})["w"]
    placed = jax.device_put(copy, jax.devices("cpu")[0], may_alias=True)
    assert placed.unsafe_buffer_pointer() == copy.ctypes.data


@pytest.mark.parametrize("shape", [(7,), (300, 500), (1, 3)])
def test_integers_are_cast_to_the_type_asked_for(shape):
    array = np.random.default_rng(0).integers(-(2**31), 2**31, shape)
    found = materialise({"i": array, "j": array}, dtypes={"i": np.dtype(np.int32)})
    assert found["i"].dtype == np.int32
    assert found["j"].dtype == np.int64
    np.testing.assert_array_equal(found["i"], array)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_single_integer_that_does_not_fit_is_refused(value, transposed):
    array = np.zeros((300, 500), np.int64)
    array[299, 3] = value
    source = np.asfortranarray(array) if transposed else array
    with pytest.raises(CorruptFileError, match=r"'table' holds int64 values that do not fit int32"):
        materialise({"i": source}, dtypes={"i": np.dtype(np.int32)}, labels={"i": "table"})
