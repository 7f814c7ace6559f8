"""Every transform undoes itself, bit for bit, and refuses what it would change."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsejax.checkpoint.errors import CorruptFileError
from sparsejax.checkpoint.transforms import chain, identity, merge, split, stored_as, transpose

DTYPES = [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64, ml_dtypes.bfloat16]


def same_bits(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@st.composite
def arrays(draw, min_dims=0, first=None):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(
        hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=0 if first is None else 1, max_side=5)
    )
    shape = shape if first is None else (first, *shape[1:])
    raw = draw(
        st.binary(
            min_size=dtype.itemsize * int(np.prod(shape)), max_size=dtype.itemsize * int(np.prod(shape))
        )
    )
    if dtype == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, dtype).reshape(shape)


def round_trip(transform, *sources):
    targets = transform.forward(sources)
    back = transform.backward(targets)
    assert len(back) == len(sources)
    assert all(same_bits(found, source) for found, source in zip(back, sources, strict=True))
    return targets


@given(arrays())
def test_identity_is_its_own_inverse(array):
    assert round_trip(identity, array)[0] is array


@given(arrays(min_dims=2))
def test_transpose_swaps_the_last_two_axes_and_back(array):
    (target,) = round_trip(transpose, array)
    assert target.shape == (*array.shape[:-2], array.shape[-1], array.shape[-2])
    assert np.shares_memory(target, array) or not array.size, "a view: the file is copied once, at the end"
    if array.size and array.ndim == 2:
        row, column = array.shape[0] - 1, array.shape[1] - 1
        assert target[column, row].tobytes() == array[row, column].tobytes()


@given(arrays(min_dims=1, first=6), st.sampled_from([1, 2, 3, 6, [1, 5], [2, 3, 1], [6]]))
def test_split_and_merge_undo_each_other(array, parts):
    targets = round_trip(split(parts), array)
    sizes = [6 // parts] * parts if isinstance(parts, int) else parts
    assert [target.shape[0] for target in targets] == sizes
    start = sizes[0]
    assert len(sizes) == 1 or same_bits(targets[1], array[start : start + sizes[1]])
    (whole,) = round_trip(merge(parts), *targets)
    assert same_bits(whole, array)


@given(arrays(min_dims=2))
def test_split_along_another_axis(array):
    width = array.shape[1]
    targets = round_trip(split([0, width], axis=1), array)
    assert [target.shape[1] for target in targets] == [0, width]


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="equal division"):
        split(4).forward((np.arange(6),))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint16"])
def test_stored_integers_pass_as_a_view_and_are_written_as_the_file_had_them(dtype):
    array = np.arange(5, dtype=dtype)
    (target,) = stored_as(dtype).forward((array,))
    assert target is array
    (source,) = stored_as(dtype).backward((target.astype(np.int32),))
    assert source.dtype == dtype
    np.testing.assert_array_equal(source, array)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_stored_integers_refuse_other_kinds_of_number(dtype, direction):
    with pytest.raises(CorruptFileError, match=f"holds {dtype} values, not integers"):
        getattr(stored_as("int64"), direction)((np.ones(3, dtype),))


@given(arrays(min_dims=2, first=6))
def test_chain_runs_forward_in_order_and_backward_in_reverse(array):
    both = chain(split(2), transpose)
    first, second = round_trip(both, array)
    assert both.name == "split then transpose"
    assert same_bits(first, array[:3].swapaxes(-1, -2))
    assert same_bits(second, array[3:].swapaxes(-1, -2))
