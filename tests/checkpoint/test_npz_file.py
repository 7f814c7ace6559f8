"""`.npz` archives: honest ones come back exactly, forged ones raise before they cost memory."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib import format as npy

from sparsejax.checkpoint import npz_file
from sparsejax.checkpoint.errors import CheckpointError, CorruptFileError, ExportError, UnsupportedTensorError

DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint16", "bool", "complex64"]
plain_arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
names = st.text(
    st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="/\\"), min_size=1, max_size=8
)


def entry(array_or_bytes):
    if isinstance(array_or_bytes, bytes):
        return array_or_bytes
    stream = io.BytesIO()
    npy.write_array(stream, array_or_bytes, allow_pickle=True)
    return stream.getvalue()


def header(text, body=b"", version=b"\x01\x00"):
    padded = text.encode().ljust(117) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(padded))
    return b"\x93NUMPY" + version + size + padded + body


def archive(path, entries, compression=zipfile.ZIP_STORED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicates that a test wants
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in entries:
                file.writestr(name, entry(content))
    return path


def read(path):
    return {name: array.view() for name, array in npz_file.read_headers(path).items()}


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@settings(max_examples=50)
@given(st.dictionaries(names, plain_arrays, min_size=1, max_size=4))
def test_what_is_written_is_read_by_us_and_by_numpy(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    npz_file.write(arrays, path)
    found = read(path)
    assert list(found) == list(arrays)
    assert all(same(found[name], array) for name, array in arrays.items())
    with np.load(path, allow_pickle=False) as theirs:
        assert all(same(theirs[name], array) for name, array in arrays.items())


def test_names_that_are_arguments_of_numpys_own_writer(tmp_path):
    arrays = {"file": np.ones(2), "allow_pickle": np.zeros(1), "args": np.arange(3)}
    npz_file.write(arrays, tmp_path / "x.npz")
    assert all(same(read(tmp_path / "x.npz")[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_headers_tell_shape_and_type_without_the_data(tmp_path, save):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "scalar": np.array(7), "empty": np.zeros((0, 4), np.int8)}
    save(tmp_path / "x.npz", **arrays)
    headers = npz_file.read_headers(tmp_path / "x.npz")
    for name, array in arrays.items():
        assert (headers[name].shape, headers[name].dtype) == (array.shape, array.dtype)
        assert headers[name].nbytes == array.nbytes
        assert same(headers[name].view(), array)


def test_foreign_byte_order_becomes_this_machines(tmp_path):
    array = np.arange(4, dtype=">i4")
    np.savez(tmp_path / "x.npz", a=array)
    found = npz_file.read_headers(tmp_path / "x.npz")["a"]
    assert found.dtype == found.view().dtype == np.dtype("int32")
    assert found.view().tolist() == [0, 1, 2, 3]


def test_fortran_order_keeps_the_values(tmp_path):
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "x.npz", a=array)
    np.testing.assert_array_equal(read(tmp_path / "x.npz")["a"], array)


def test_npz_files_are_told_from_other_zips(tmp_path):
    assert npz_file.is_npz(archive(tmp_path / "a.npz", [("a.npy", np.ones(2))]))
    assert not npz_file.is_npz(archive(tmp_path / "b.zip", [("a.npy", np.ones(2)), ("data.pkl", b"x")]))
    assert not npz_file.is_npz(archive(tmp_path / "c.zip", []))
    (tmp_path / "text").write_text("no zip")
    assert not npz_file.is_npz(tmp_path / "text")
    assert not npz_file.is_npz(tmp_path / "missing")


FORGED = {
    "larger than the entry": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000)}"),
    "smaller than the entry": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8),
    "beyond any integer": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}"),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -2)}", b"\0" * 8),
    "no number": header("{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}"),
    "no header": b"\x93NUMPY\x01\x00",
    "no magic": b"plain text, long enough to hold a header of the usual size",
    "unknown version": header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b"\0" * 4, b"\x09\x00"
    ),
    "empty": b"",
    "a code": header("__import__('os').system('true')"),
    "a long nest": header("(" * 100 + ")" * 100),
    "an empty type": header("{'descr': (), 'fortran_order': False, 'shape': ()}"),
    "a foreign type": header("{'descr': 'spam', 'fortran_order': False, 'shape': ()}"),
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED)
def test_forged_headers_are_refused_before_any_data_is_read(tmp_path, content):
    path = archive(tmp_path / "x.npz", [("fine.npy", np.ones(2)), ("bad.npy", content)])
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError):
            npz_file.read_headers(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


class Trap:
    ran = False

    def __reduce__(self):
        return (setattr, (Trap, "ran", True))


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    array = np.array([Trap()], dtype=object)
    path = archive(tmp_path / "x.npz", [("a.npy", array)])
    with pytest.raises(UnsupportedTensorError, match=r"'a.npy' has dtype object"):
        npz_file.read_headers(path)
    raw = header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", pickle.dumps(Trap()))
    with pytest.raises(CorruptFileError):
        npz_file.read_headers(archive(tmp_path / "y.npz", [("a.npy", raw)]))
    assert not Trap.ran


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.array(["text"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([b"x"]),
    ],
    ids=["records", "text", "dates", "bytes"],
)
def test_arrays_of_no_numbers_are_refused(tmp_path, array):
    path = archive(tmp_path / "x.npz", [("a.npy", array)])
    with pytest.raises(UnsupportedTensorError, match="numbers are needed"):
        npz_file.read_headers(path)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = archive(tmp_path / "x.npz", [("a.npy", np.ones(2)), ("a.npy", np.zeros(2))])
    with pytest.raises(CorruptFileError, match="same name"):
        npz_file.read_headers(path)


def test_a_size_that_compression_cannot_reach_is_refused(tmp_path):
    path = archive(tmp_path / "x.npz", [("a.npy", np.zeros(64, np.uint8))], zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 24 : central + 28] = struct.pack("<I", 1 << 30)
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError, match="impossible size"):
        npz_file.read_headers(path)


def test_data_that_does_not_match_its_checksum_is_refused(tmp_path):
    path = archive(tmp_path / "x.npz", [("a.npy", np.arange(500.0))])
    raw = bytearray(path.read_bytes())
    raw[2000] ^= 1
    path.write_bytes(raw)
    found = npz_file.read_headers(path)["a"]
    with pytest.raises(CorruptFileError, match="'a.npy' cannot be read"):
        found.view()


def test_a_file_that_is_gone_when_its_data_is_wanted(tmp_path):
    path = archive(tmp_path / "x.npz", [("a.npy", np.ones(2))])
    found = npz_file.read_headers(path)["a"]
    path.unlink()
    with pytest.raises(CorruptFileError, match="'a.npy' cannot be read"):
        found.view()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    npz_file.write({"a": np.ones(2)}, tmp_path / "x.npz")
    with pytest.raises(ExportError, match=r"x\.npz: cannot be written \(Object arrays"):
        npz_file.write({"a": np.zeros(3), "b": np.array([object()])}, tmp_path / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    assert read(tmp_path / "x.npz")["a"].tolist() == [1, 1]


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_damaged_archives_raise_a_checkpoint_error_or_read_right(tmp_path_factory, data):
    check_damaged(tmp_path_factory, data)


@settings(max_examples=150)
@given(st.data())
def test_a_few_damaged_archives(tmp_path_factory, data):
    check_damaged(tmp_path_factory, data)


def check_damaged(tmp_path_factory, data):
    """Flip, cut or splice; a CRC protects the data, so that whatever is read equals what was written."""
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.arange(5)}
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    data.draw(st.sampled_from([np.savez, np.savez_compressed]))(path, **arrays)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if action == "flip":
            raw[place] ^= data.draw(st.integers(1, 255))
        elif action == "cut":
            del raw[place : place + data.draw(st.integers(1, 40))]
        else:
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        if not raw:
            return
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of odd headers, zipfile of odd names
        try:
            found = read(path)
        except CheckpointError:
            return
    known = [array.tobytes() for array in arrays.values()]
    assert all(array.tobytes() in known for array in found.values())


def test_written_archive_has_the_permissions_of_any_new_file(tmp_path):
    npz_file.write({"w": np.ones(2)}, tmp_path / "w.npz")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "w.npz").stat().st_mode == (tmp_path / "other").stat().st_mode
