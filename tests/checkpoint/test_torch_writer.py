"""Writing torch files without torch: what comes back, what is shared, refused and left behind."""

from __future__ import annotations

import collections
import math
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import ExportError
from sparsejax.checkpoint.torch_format import torch_writer, zip_writer
from sparsejax.checkpoint.torch_format.torch_types import DTYPES, TorchDevice, TorchDtype, TorchSize
from tests import golden
from tests.checkpoint import torch_forge as forge
from tests.checkpoint.torch_fuzz import reference, same

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # messages then hold the file's name and not the test's


@pytest.fixture
def cycle(tmp_path):
    """Writes, lets the standard library judge the file, reads."""

    def run(obj):
        path = tmp_path / "model.pt"
        torch_file.write(obj, path)
        found = torch_file.read(path)
        assert same(found, reference(path))
        return found

    return run


def storages(path) -> list[int]:
    """Sizes of the storages of a file, in their order."""
    return [
        len(raw) for name, raw in forge.unpack(path).items() if "/data/" in name and "/.data/" not in name
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 1)])
def test_every_dtype_comes_back_bit_for_bit(cycle, dtype, shape):
    size = math.prod(shape) * DTYPES[dtype].itemsize
    raw = np.random.default_rng(3).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    array = raw.view(DTYPES[dtype]).reshape(shape)
    found = cycle({"w": array})["w"]
    assert found.dtype == array.dtype and found.shape == shape
    assert found.tobytes() == array.tobytes()


PLAIN = [
    *(None, True, False, 0.1, float("-inf"), 1 + 2j),
    *(0, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**2038, -(2**2038)),
    *("", "é\U0001f600\udcff", b"", b"\0\xff"),
    *([], [1], list(range(3000)), (), (1,), (1, 2, 3), (1, 2, 3, 4), set(), {1, "a", 2.5, (1, 2)}),
    *({}, {"a": 1}, {7: None, 1.5: (), ("x", 2): [], None: 0, True: 3}, dict.fromkeys(range(2500))),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("aab")),
    *(TorchSize((2, 3)), TorchSize(()), TorchDevice("cpu"), TorchDevice("cuda:1")),
    *(TorchDtype("torch.float8_e5m2"), TorchDtype("torch.quint8")),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)  # a set has no fixed text
def test_value_comes_back_as_it_was(cycle, value):
    found = cycle([value])[0]
    assert type(found) is type(value)
    assert found == value


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.complex64(1j), 1j),
        (ml_dtypes.bfloat16(2), 2.0),
        (np.str_("x"), "x"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (pathlib.PureWindowsPath("C:/a"), "C:\\a"),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
    ],
)
def test_value_is_written_as_its_plain_python_one(cycle, value, plain):
    found = cycle({"x": value})["x"]
    assert type(found) is type(plain)
    assert found == plain


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=5)
        | st.complex_numbers(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=3) | st.integers(-(2**60), 2**60), inner, max_size=4)
            | st.tuples(inner, inner)
        ),
        max_leaves=20,
    )
)
def test_any_nesting_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "nested.pt"
    torch_file.write(value, path)
    assert repr(torch_file.read(path)) == repr(value)


def test_state_dict_metadata_is_kept(cycle):
    state = collections.OrderedDict(w=np.ones(2))
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    found = cycle({"state": state})["state"]
    assert type(found) is collections.OrderedDict
    assert found._metadata == {"": {"version": 1}}


def test_jax_arrays_and_lazy_tensors_are_written(cycle, tmp_path):
    array = jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)
    found = cycle({"a": array, "tied": array})
    assert found["a"] is found["tied"]
    assert found["a"].tobytes() == np.asarray(array).tobytes()
    opened = torch_file.open_file(tmp_path / "model.pt")
    torch_file.write({"again": opened.tree["a"], "tied": opened.tree["tied"]}, tmp_path / "again.pt")
    again = torch_file.read(tmp_path / "again.pt")
    assert again["again"] is again["tied"]
    assert again["again"].tobytes() == np.asarray(array).tobytes()


# sharing


def test_containers_and_arrays_stay_shared(cycle):
    inner, array = [1], np.arange(3.0)
    found = cycle({"a": inner, "b": inner, "t": (inner,), "w": array, "tied": [array]})
    assert found["a"] is found["b"] is found["t"][0]
    assert found["w"] is found["tied"][0]


def test_views_of_one_buffer_are_one_storage(cycle, tmp_path):
    buffer = np.arange(60, dtype=np.float32)
    w = buffer.reshape(6, 10)
    found = cycle(
        {"w": w, "t": w.T, "row": w[3], "column": w[:, 2], "bits": w.view(np.int32), "head": buffer[:10]}
    )
    assert storages(tmp_path / "model.pt") == [240]
    np.testing.assert_array_equal(found["t"], w.T)
    np.testing.assert_array_equal(found["column"], w[:, 2])
    np.testing.assert_array_equal(found["bits"], w.view(np.int32))
    assert all(np.shares_memory(found["w"], found[key]) for key in found)


def test_parts_side_by_side_share_and_parts_apart_do_not(cycle, tmp_path):
    buffer = np.arange(100, dtype=np.float32)
    found = cycle([buffer[0:10], buffer[10:20], buffer[50:60]])
    assert storages(tmp_path / "model.pt") == [80, 40]
    np.testing.assert_array_equal(np.concatenate(found), np.r_[0:20, 50:60])


def test_lone_view_of_a_big_buffer_is_compacted(cycle, tmp_path):
    buffer = np.arange(1_000_000, dtype=np.float32)
    found = cycle({"few": buffer[10:1000:100], "turned": buffer[:6].reshape(2, 3).T})
    assert storages(tmp_path / "model.pt") == [40, 24]
    np.testing.assert_array_equal(found["few"], buffer[10:1000:100])
    assert found["turned"].strides == (4, 12)


def test_expanded_reversed_and_foreign_arrays(cycle, tmp_path):
    big = np.arange(3, dtype=">f4")
    odd = np.frombuffer(b"\0" + np.arange(3, dtype=np.float32).tobytes(), np.float32, 3, 1)
    fields = np.zeros(3, [("a", np.int8), ("b", np.float32)])["b"]
    found = cycle(
        {
            "one": np.broadcast_to(np.float32(7), (50, 50)),
            "back": np.arange(4)[::-1],
            "big": big,
            "odd": odd,
            "fields": fields,
        }
    )
    assert (found["one"] == 7).all() and found["one"].shape == (50, 50)
    np.testing.assert_array_equal(found["back"], [3, 2, 1, 0])
    np.testing.assert_array_equal(found["big"], [0, 1, 2])
    np.testing.assert_array_equal(found["odd"], [0, 1, 2])
    np.testing.assert_array_equal(found["fields"], [0, 0, 0])


def test_many_views_of_one_buffer_can_be_read_back(cycle):
    buffer = np.arange(200_000, dtype=np.float32)
    found = cycle([buffer[i:] for i in range(12)])
    assert [array[0] for array in found] == list(range(12))


@pytest.mark.parametrize("family", ["ultra_sparse", "sprout", "ten", "force_field"])
@golden.needs_golden
def test_golden_files_survive_a_round_trip(cycle, family):
    for path in sorted((golden.ROOT / family).glob("*.pt"))[:6]:
        content = torch_file.read(path)
        assert same(cycle(content), content)


# the container


def test_container_is_laid_out_as_torch_s(tmp_path):
    path = tmp_path / "my model.v2.pt"
    torch_file.write({"a": np.arange(5.0), "b": np.zeros(0), "c": np.ones(3, np.int8)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = [info.filename for info in archive.infolist()]
        for info in archive.infolist():
            lengths = struct.unpack_from("<2H", content, info.header_offset + 26)
            assert (info.header_offset + 30 + sum(lengths)) % 64 == 0
            assert info.compress_type == zipfile.ZIP_STORED
    expected = ["data.pkl", "byteorder", "data/0", "data/1", "data/2", "version", ".data/serialization_id"]
    assert names == [f"my model.v2/{name}" for name in expected]
    records = {name.partition("/")[2]: raw for name, raw in forge.unpack(path).items()}
    assert records["byteorder"] == sys.byteorder.encode()
    assert records["version"] == b"3\n"
    assert len(records[".data/serialization_id"]) == 40 and records[".data/serialization_id"].isdigit()


@pytest.mark.parametrize(
    "name, root",
    [
        ("w.pt", "w"),
        ("ä.pt", "archive"),
        ("..pt", "archive"),
        (".pt", "archive"),
        ("a\\b.pt", "archive"),
        ("x", "x"),
    ],
)
def test_root_folder_is_the_stem_where_that_is_a_plain_name(tmp_path, name, root):
    torch_file.write([1], tmp_path / name)
    assert {entry.split("/")[0] for entry in forge.unpack(tmp_path / name)} == {root}
    assert torch_file.read(tmp_path / name) == [1]


def test_equal_objects_give_equal_bytes(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from sparsejax.checkpoint import torch_file\n"
        "torch_file.write({'s': {'x', 'y', 'zz', 3}, 'w': np.arange(9.0).reshape(3, 3).T}, sys.argv[1])"
    )
    contents = []
    for seed in ("1", "2"):
        path = tmp_path / seed / "m.pt"
        path.parent.mkdir()
        subprocess.run(
            [sys.executable, "-c", program, path],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
        )
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_large_archives_use_zip64(tmp_path, monkeypatch):
    """The limits of 32 bits, lowered: the standard library must still find everything."""
    monkeypatch.setattr(zip_writer, "LIMIT32", 1000)
    path = tmp_path / "big.pt"
    value = {str(i): np.full(300, i) for i in range(5)}
    torch_file.write(value, path)
    content = path.read_bytes()
    assert b"PK\x06\x06" in content and b"PK\x06\x07" in content
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("big/data/4").file_size == 2400
    assert same(torch_file.read(path), value)


def test_more_entries_than_16_bits_count(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_writer, "LIMIT16", 10)
    path = tmp_path / "many.pt"
    torch_file.write([np.array(i) for i in range(300)], path)
    content = path.read_bytes()
    assert content[-14:-10] == b"\xff\xff\xff\xff" and b"PK\x06\x06" in content
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 304
    assert [ref.view().item() for ref in torch_file.open_file(path).tensors()] == list(range(300))


# refusals


class Odd:
    pass


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value, spot",
    [
        ({"a": [0, Odd()]}, r"obj\['a'\]\[1\] is a Odd"),
        ({"a": {"b": np.array([None])}}, r"obj\['a'\]\['b'\] is an array of object"),
        ([np.array("x")], r"obj\[0\] is an array of <U1"),
        ([np.array("2020", "M8[D]")], r"obj\[0\] is an array of datetime64"),
        ([np.datetime64("2020")], r"obj\[0\] is a datetime64"),
        ([np.longdouble(1)], r"obj\[0\]"),
        ([frozenset([1])], r"obj\[0\] is a frozenset"),
        ([bytearray(b"x")], r"obj\[0\] is a bytearray"),
        ([print], r"obj\[0\] is a builtin"),
        ([np.dtype("f4")], r"obj\[0\]"),
        ({Odd(): 1}, r"a key of obj is a Odd"),
        ({(1, Odd()): 1}, r"a key of obj is a Odd"),
        ([{frozenset([1])}], r"a member of obj\[0\]"),
        ([2**2040], r"obj\[0\] is an integer"),
        ([TorchDtype("torch.system")], r"obj\[0\].*no torch dtype"),
        ([TorchDtype("os.system")], r"obj\[0\].*no torch dtype"),
        ([TorchDevice("cuda:x")], r"obj\[0\].*no torch device"),
        (CYCLE, "holds itself"),
        ({"x": (CYCLE,)}, "holds itself"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_refusal_names_the_place_and_leaves_nothing(tmp_path, value, spot):
    with pytest.raises(ExportError, match=rf"^model\.pt: .*{spot}") as caught:
        torch_file.write(value, "model.pt")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_array_that_was_given_away_is_refused(tmp_path):
    array = jnp.ones(3)
    array.delete()
    with pytest.raises(ExportError, match=r"^model\.pt: obj\['w'\] cannot be read as an array \(.*deleted"):
        torch_file.write({"w": array}, "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_nesting_beyond_the_reader_s_limit_is_refused(tmp_path):
    deep: list = []
    for _ in range(99):
        deep = [deep]
    torch_file.write(deep, tmp_path / "m.pt")
    assert torch_file.read(tmp_path / "m.pt") == deep
    with pytest.raises(ExportError, match="deep"):
        torch_file.write([deep], tmp_path / "m.pt")


def test_failure_in_the_middle_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    torch_file.write({"w": np.ones(3)}, path)
    old = path.read_bytes()

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zip_writer.ZipWriter, "finish", fail)
    with pytest.raises(ExportError, match="No space left"):
        torch_file.write({"w": np.zeros(3)}, path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model.pt"]
    monkeypatch.undo()
    monkeypatch.setattr(torch_writer, "emit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        torch_file.write({"w": np.zeros(3)}, path)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(ExportError, match="cannot be written"):
        torch_file.write([1], tmp_path / "absent" / "m.pt")
    with pytest.raises(ExportError, match="cannot be written"):
        torch_file.write([1], tmp_path)
    assert os.listdir(tmp_path) == []


def test_file_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        torch_file.write([1], tmp_path / "m.pt")
    finally:
        os.umask(old)
    assert (tmp_path / "m.pt").stat().st_mode & 0o777 == 0o640


def test_rewriting_a_file_from_its_own_mapping(tmp_path):
    """The arrays still view the old file while the new one is written beside it and takes its place."""
    path = tmp_path / "m.pt"
    torch_file.write({"a": np.arange(5000.0), "b": np.ones(3)}, path)
    content = torch_file.read(path)
    torch_file.write({"b": content["b"], "a": content["a"]}, path)
    np.testing.assert_array_equal(torch_file.read(path)["a"], np.arange(5000.0))
    np.testing.assert_array_equal(content["a"], np.arange(5000.0))
