"""Reading torch files without torch: values, views, sharing, byte order, checksums, clear refusals."""

from __future__ import annotations

import collections
import mmap
import os
import pathlib
import pickle
import struct
import threading
import zlib

import ml_dtypes
import numpy as np
import pytest

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    NotReadableError,
    TruncatedFileError,
    UnsafePickleError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.torch_format import bulk, crc32
from sparsejax.checkpoint.torch_format.storages import TensorRef
from sparsejax.checkpoint.torch_format.torch_types import (
    DTYPES,
    STORAGE_DTYPES,
    TorchDevice,
    TorchDtype,
    TorchSize,
)
from tests import golden
from tests.checkpoint import torch_forge as forge

FLOATS = np.arange(24, dtype=np.float32)


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # messages then hold the file's name and not the test's

    def put(content: bytes, file: str = "model.pt") -> pathlib.Path:
        path = pathlib.Path(file)
        path.write_bytes(content)
        return path

    return put


def one_tensor(shape, strides, offset=0, numel=24, **options) -> bytes:
    body = forge.mapping(w=forge.tensor(forge.storage("0", numel), shape, strides, offset, **options))
    return forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()})


# values


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((2, 3), (3, 1), 0),
        ((3, 2), (1, 3), 5),
        ((4,), (5,), 2),
        ((), (), 7),
        ((2, 0, 3), (3, 3, 1), 24),
        ((3, 4), (0, 1), 1),
    ],
)
def test_views_of_a_storage_have_torch_s_elements(save, shape, strides, offset):
    array = torch_file.read(save(one_tensor(shape, strides, offset)))["w"]
    steps = [4 * stride for stride in strides]
    expected = np.lib.stride_tricks.as_strided(FLOATS[offset:], shape, steps)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected)
    assert not array.flags.writeable


@pytest.mark.parametrize("kind", STORAGE_DTYPES)
@pytest.mark.parametrize("legacy", [False, True])
def test_typed_storage_has_its_dtype(save, kind, legacy):
    dtype = DTYPES[STORAGE_DTYPES[kind]]
    raw = bytes(range(1, 1 + 2 * dtype.itemsize)) if kind != "BoolStorage" else b"\1\0"
    body = forge.tensor(forge.storage("0", 2, kind, legacy=legacy), (2,), (1,))
    content = (
        forge.legacy_bytes(body, {"0": (2, raw)})
        if legacy
        else forge.zip_bytes(forge.whole(body), {"0": raw})
    )
    array = torch_file.read(save(content))
    assert array.dtype == dtype
    assert array.tobytes() == raw


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64", "float32"])
def test_untyped_storage_takes_the_dtype_of_the_tensor(save, dtype):
    size = DTYPES[dtype].itemsize
    raw = bytes(range(8))
    fields = forge.storage("0", 8, "storage.UntypedStorage") + forge.number(0) + forge.numbers([8 // size])
    fields += forge.numbers([1]) + b"\x89" + forge.ordered_dict() + forge.name("torch", dtype)
    body = forge.name("torch._utils", "_rebuild_tensor_v3") + b"(" + fields + b"tR"
    array = torch_file.read(save(forge.zip_bytes(forge.whole(body), {"0": raw})))
    assert array.dtype == DTYPES[dtype]
    assert array.tobytes() == raw


VALUES = [
    None,
    True,
    -1,
    255,
    65536,
    2**40,
    -(2**600),
    1.5,
    float("inf"),
    "",
    "naïve \U0001f600",
    b"",
    b"\x00\xff",
    1 + 2j,
    [],
    [1, [2, [3]]],
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    {},
    {"a": 1, 2: "b", (1, "x"): None, 1.5: 0, None: 1, b"k": 2},
    {1, "a", 2.5},
    frozenset([1, 2]),
    set(),
    bytearray(b"abc"),
    bytearray(),
    collections.OrderedDict(a=1, b=[2]),
    collections.Counter("aab"),
    np.float32(1.25),
    np.float64(-2),
    np.int64(2**40),
    np.bool_(True),
    np.complex64(1 - 2j),
    np.dtype("int16"),
    np.dtype(">f8"),
    list(range(2500)),
    {str(i): i for i in range(1500)},
]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)  # a set has no fixed text
def test_python_value_comes_back_as_python_s_own_pickle_says(save, value, protocol):
    path = save(forge.zip_bytes(pickle.dumps(value, protocol)))
    found = torch_file.read(path)
    assert type(found) is type(value)
    assert found == value


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i2"),
        np.array(3.5),
        np.zeros((0, 2), np.float16),
        np.array([True, False]),
        np.arange(300, dtype=np.complex128),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_numpy_array_in_a_pickle(save, array, protocol):
    found = torch_file.read(save(forge.zip_bytes(pickle.dumps({"a": [array], "b": array}, protocol))))
    assert found["a"][0].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["b"], array)


def test_python_2_strings_and_arrays(save):
    python2 = b"\x80\x02}q\x00(U\x03abcq\x01K\x01U\x03\xc3\xa9xK\x02S'q\\'t'\nK\x03u."
    assert torch_file.read(save(forge.zip_bytes(python2))) == {"abc": 1, "éx": 2, "q't": 3}
    ordered = forge.call("collections", "OrderedDict", b"](](U\1bK\1e](U\1aK\2ee")
    content = forge.call("__builtin__", "bytearray", forge.text("a\xff"), forge.text("latin-1"))
    dtype = forge.call("numpy", "dtype", b"U\2i2", b"K\0", b"K\1")
    number = forge.call("numpy.core.multiarray", "scalar", dtype, b"U\2\1\2")
    body = forge.mapping(ordered=ordered, content=content, number=number)
    found = torch_file.read(save(forge.zip_bytes(forge.whole(body))))
    assert list(found["ordered"].items()) == [("b", 1), ("a", 2)]
    assert type(found["ordered"]) is collections.OrderedDict
    assert found["content"] == bytearray(b"a\xff") and found["number"] == np.int16(0x201)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_become_text(save, protocol, module):
    parts = (forge.text("/"), forge.text("data"), forge.text("x.pt"))
    body = forge.mapping(
        posix=forge.call(module, "PosixPath", *parts),
        windows=forge.call(module, "WindowsPath", forge.text("C:\\"), forge.text("x")),
        pure=forge.call(module, "PurePosixPath"),
    )
    found = torch_file.read(save(forge.zip_bytes(forge.whole(body, protocol))))
    assert found == {"posix": "/data/x.pt", "windows": "C:\\x", "pure": "."}
    assert all(type(value) is str for value in found.values())


def test_this_python_s_own_pickled_path(save):
    path = pathlib.Path("/a") / "b"
    assert torch_file.read(save(forge.zip_bytes(pickle.dumps(path, 2)))) == str(path)


def test_torch_values(save):
    body = forge.mapping(
        size=forge.call("torch", "Size", forge.numbers([2, 3])),
        device=forge.call("torch", "device", forge.text("cuda"), forge.number(1)),
        cpu=forge.call("torch", "device", forge.text("cpu")),
        dtype=forge.name("torch", "bfloat16"),
        quantised=forge.name("torch", "quint8"),
        layout=forge.call("torch.serialization", "_get_layout", forge.text("torch.strided")),
        kind=forge.name("torch", "FloatStorage"),
        factory=forge.call("collections", "defaultdict", forge.name("__builtin__", "list")),
    )
    found = torch_file.read(save(forge.zip_bytes(forge.whole(body))))
    assert type(found["size"]) is TorchSize and found["size"] == (2, 3)
    assert repr(found["size"]) == "TorchSize([2, 3])"
    assert type(found["device"]) is TorchDevice and found["device"] == "cuda:1"
    assert found["cpu"] == "cpu"
    assert type(found["dtype"]) is TorchDtype and found["dtype"].numpy() == ml_dtypes.bfloat16
    assert found["quantised"] == "torch.quint8" and found["quantised"].numpy() is None
    assert found["layout"] == "torch.strided"
    assert found["kind"] == "torch.FloatStorage"
    assert found["factory"] == {}


def test_state_dict_keeps_its_metadata_and_nothing_else(save):
    state = b"}(" + text_pair("_metadata", forge.mapping(layer=forge.number(2)))
    state += text_pair("evil", forge.number(1)) + b"u"
    body = forge.ordered_dict() + forge.text("w") + forge.number(3) + b"s" + state + b"b"
    found = torch_file.read(save(forge.zip_bytes(forge.whole(body))))
    assert found == {"w": 3}
    assert vars(found) == {"_metadata": {"layer": 2}}


def text_pair(key: str, value: bytes) -> bytes:
    return forge.text(key) + value


def test_flags_of_a_tensor(save):
    plain = forge.tensor(forge.storage("0", 24), (2,), (1,))
    grad = plain.replace(b"\x89", b"\x88", 1)
    body = forge.mapping(
        plain=plain,
        grad=grad,
        parameter=forge.call("torch._utils", "_rebuild_parameter", plain, b"\x88", forge.ordered_dict()),
        state=forge.call(
            "torch._utils", "_rebuild_parameter_with_state", plain, b"\x88", forge.ordered_dict(), b"}"
        ),
        attribute=forge.call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            forge.name("torch._utils", "_rebuild_tensor_v2"),
            forge.name("torch", "Tensor"),
            plain[plain.index(b"(") : -1],
            forge.mapping(tag=forge.number(1)),
        ),
    )
    tree = torch_file.open_file(save(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()}))).tree
    flags = {key: (ref.requires_grad, ref.is_parameter) for key, ref in tree.items()}
    assert flags == {
        "plain": (False, False),
        "grad": (True, False),
        "parameter": (True, True),
        "state": (True, True),
        "attribute": (False, False),
    }
    assert tree["attribute"].view() is tree["plain"].view()


def test_conjugate_and_negative_bits(save):
    values = np.array([1 + 2j, 3 - 4j], np.complex64)
    conj = forge.tensor(
        forge.storage("0", 2, "ComplexFloatStorage"), (2,), (1,), tail=forge.mapping(conj=b"\x88")
    )
    neg = forge.tensor(forge.storage("1", 2), (2,), (1,), tail=forge.mapping(neg=b"\x88"))
    content = forge.zip_bytes(
        forge.whole(forge.mapping(conj=conj, neg=neg)), {"0": values.tobytes(), "1": FLOATS[1:3].tobytes()}
    )
    opened = torch_file.open_file(save(content))
    found = torch_file.read(opened.path)
    np.testing.assert_array_equal(found["conj"], values.conj())
    np.testing.assert_array_equal(found["neg"], [-1, -2])


# sharing and laziness


def test_tied_tensors_are_one_array_and_views_share_memory(save):
    stored = forge.storage("0", 24)
    body = forge.mapping(
        a=forge.tensor(stored, (4, 6), (6, 1)),
        tied=forge.tensor(stored, (4, 6), (6, 1)),
        turned=forge.tensor(stored, (6, 4), (1, 6)),
        raw=stored,
    )
    found = torch_file.read(save(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()})))
    assert found["a"] is found["tied"]
    assert np.shares_memory(found["a"], found["turned"])
    np.testing.assert_array_equal(found["turned"], found["a"].T)
    np.testing.assert_array_equal(found["raw"], FLOATS)


def test_shared_containers_stay_shared(save):
    inner = [1]
    found = torch_file.read(save(forge.zip_bytes(pickle.dumps([inner, inner, (inner,)], 2))))
    assert found[0] is found[1] is found[2][0]


def test_opening_reads_no_tensor_data(save):
    content = bytearray(one_tensor((2, 3), (3, 1)))
    at = content.index(FLOATS.tobytes())
    content[at] ^= 1
    opened = torch_file.open_file(save(bytes(content)))
    ref = opened.tree["w"]
    assert isinstance(ref, TensorRef)
    assert (ref.shape, ref.strides, ref.dtype, ref.nbytes) == ((2, 3), (3, 1), np.float32, 24)
    assert opened.globals == (
        "collections.OrderedDict",
        "torch.FloatStorage",
        "torch._utils._rebuild_tensor_v2",
    )
    assert (opened.format, opened.file_bytes) == ("zip", len(content))
    with pytest.raises(CorruptFileError, match=r"data/0.*checksum"):
        bulk.verify([ref.storage])


# checksums


def test_every_checksum_is_compared(save):
    content = one_tensor((24,), (1,))
    for needle in (FLOATS.tobytes(), b"little", b"_rebuild_tensor_v2", b"3\n"):
        broken = bytearray(content)
        broken[broken.index(needle) + 1] ^= 4
        with pytest.raises(CorruptFileError, match="checksum"):
            torch_file.read(save(bytes(broken)))


def test_verify_false_skips_the_storages_only(save):
    content = bytearray(one_tensor((24,), (1,)))
    content[content.index(FLOATS.tobytes()) + 3] ^= 0x80
    assert torch_file.read(save(bytes(content)), verify=False)["w"][0] == -0.0
    with pytest.raises(CorruptFileError):
        torch_file.read(save(bytes(content)))


def test_file_without_checksums_is_read(save):
    content = forge.without_checksums(one_tensor((24,), (1,)))
    np.testing.assert_array_equal(torch_file.read(save(content))["w"], FLOATS)


def test_one_missing_checksum_among_others_is_an_error(save):
    content = bytearray(one_tensor((24,), (1,)))
    crc = struct.pack("<I", zlib.crc32(FLOATS.tobytes()))
    content[content.rindex(crc) : content.rindex(crc) + 4] = bytes(4)
    with pytest.raises(CorruptFileError, match="data/0"):
        torch_file.read(save(bytes(content)))


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (0, 5), (3, 4), (1000, 65536), (7, 1_000_003)])
def test_checksums_of_parts_combine(lengths):
    first, second = (np.random.default_rng(0).bytes(length) for length in lengths)
    assert crc32.combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_large_storage_is_checked_in_parts(save, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(bulk, "INLINE_BYTES", 0)
    values = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    body = forge.mapping(
        a=forge.tensor(forge.storage("0", 5000), (4000,), (1,), 500),
        b=forge.tensor(forge.storage("0", 5000), (10, 100), (100, 1), 3),
        c=forge.tensor(forge.storage("0", 5000), (100, 10), (1, 100), 7),
    )
    content = forge.zip_bytes(forge.whole(body), {"0": values.tobytes()})
    opened = torch_file.open_file(save(content))
    refs = [opened.tree[key] for key in "abc"]
    bulk.verify(ref.storage for ref in refs)
    a, b, c = (ref.view() for ref in refs)
    np.testing.assert_array_equal(a, values[500:4500])
    np.testing.assert_array_equal(b, values[3:1003].reshape(10, 100))
    np.testing.assert_array_equal(c, values[7:1007].reshape(10, 100).T)
    assert opened.tree["a"].storage.verified
    for at in (0, 8192, 19999):
        broken = bytearray(content)
        broken[content.index(values.tobytes()) + at] ^= 0x10
        with pytest.raises(CorruptFileError, match="data/0"):
            torch_file.read(save(bytes(broken), "broken.pt"))


def test_storage_is_verified_at_most_once(save, monkeypatch):
    opened = torch_file.open_file(save(one_tensor((24,), (1,))))
    ref = opened.tree["w"]
    ref.storage.verify()
    monkeypatch.setattr(zlib, "crc32", lambda *_: pytest.fail("verified twice"))
    ref.storage.verify()
    bulk.verify([ref.storage])


# byte order and alignment


@pytest.mark.parametrize("dtype", [name for name, dtype in DTYPES.items() if name in STORAGE_DTYPES.values()])
def test_big_endian_file(save, dtype):
    kind = {name: kind for kind, name in STORAGE_DTYPES.items()}[dtype]
    native = np.array([0, 1, 1, 0, 1, 0], np.uint8) if dtype == "bool" else np.arange(1, 7)
    values = native.astype(DTYPES[dtype])
    halves = values.view("f4" if dtype == "complex64" else "f8") if values.dtype.kind == "c" else values
    raw = halves.view(f"u{halves.dtype.itemsize}").byteswap().tobytes()
    body = forge.mapping(
        a=forge.tensor(forge.storage("0", 6, kind), (6,), (1,)),
        t=forge.tensor(forge.storage("0", 6, kind), (3, 2), (1, 3)),
    )
    path = save(forge.zip_bytes(forge.whole(body), {"0": raw}, byteorder=b"big"))
    found = torch_file.read(path)
    assert found["a"].dtype == values.dtype
    assert found["a"].tobytes() == values.tobytes()
    assert np.shares_memory(found["a"], found["t"])
    assert found["t"].tobytes() == values.reshape(2, 3).T.tobytes()


@pytest.mark.parametrize("root", ["a", "ab", "abc", "abcd"])
def test_unaligned_record_gives_aligned_arrays(save, root):
    content = forge.zip_bytes(
        forge.whole(forge.tensor(forge.storage("0", 24), (24,), (1,))), {"0": FLOATS.tobytes()}, root=root
    )
    array = torch_file.read(save(content))
    assert array.flags.aligned
    np.testing.assert_array_equal(array, FLOATS)


def test_aligned_record_is_not_copied(tmp_path):
    path = tmp_path / "w.pt"
    torch_file.write({"w": FLOATS}, path)
    ref = torch_file.open_file(path).tree["w"]
    address = ref.view().__array_interface__["data"][0]
    start = np.frombuffer(ref.storage.map, np.uint8).__array_interface__["data"][0]
    assert (address - start) == ref.storage.start


def test_missing_byteorder_means_little(save):
    content = forge.zip_bytes(
        forge.whole(forge.tensor(forge.storage("0", 24), (24,), (1,))),
        {"0": FLOATS.tobytes()},
        byteorder=None,
    )
    np.testing.assert_array_equal(torch_file.read(save(content)), FLOATS)


# the legacy container


def test_legacy_views_and_untidy_alignment(save):
    view = b"(" + forge.text("v") + forge.number(4) + forge.number(8) + b"t"
    body = forge.mapping(
        a=forge.tensor(forge.storage("k1", 24, legacy=True), (4, 6), (1, 4)),
        b=forge.tensor(forge.storage("k1", 24, legacy=True, view=view), (8,), (1,)),
        c=forge.tensor(forge.storage("k0", 3, "ByteStorage", legacy=True), (3,), (1,)),
    )
    content = forge.legacy_bytes(body, {"k0": (3, b"xyz"), "k1": (24, FLOATS.tobytes())})
    opened = torch_file.open_file(save(content))
    assert opened.format == "legacy"
    found = torch_file.read(opened.path)
    np.testing.assert_array_equal(found["a"], FLOATS.reshape(6, 4).T)
    np.testing.assert_array_equal(found["b"], FLOATS[4:12])
    assert found["a"].flags.aligned
    assert np.shares_memory(found["a"], found["b"])
    assert found["c"].tobytes() == b"xyz"


def test_legacy_record_errors(save):
    body = forge.tensor(forge.storage("0", 24, legacy=True), (24,), (1,))
    raw = FLOATS.tobytes()
    good = forge.legacy_bytes(body, {"0": (24, raw)})
    np.testing.assert_array_equal(torch_file.read(save(good)), FLOATS)
    with pytest.raises(TruncatedFileError, match="fetch"):
        torch_file.read(save(good[:-1]))
    with pytest.raises(TruncatedFileError):
        torch_file.read(save(good[:40]))
    with pytest.raises(CorruptFileError, match="another size"):
        torch_file.read(save(forge.legacy_bytes(body, {"0": (23, raw)})))
    with pytest.raises(CorruptFileError, match="list of storages"):
        torch_file.read(save(forge.legacy_bytes(body, {"0": (24, raw)}, keys=["1"])))
    with pytest.raises(CorruptFileError, match="list of storages"):
        torch_file.read(save(forge.legacy_bytes(body, {"0": (24, raw)}, keys=[0])))
    with pytest.raises(CorruptFileError, match="protocol version"):
        torch_file.read(save(forge.legacy_bytes(body, {"0": (24, raw)}, version=1002)))
    for view in (forge.number(1), b"(" + forge.text("v") + forge.number(-1) + forge.number(8) + b"t"):
        stored = forge.storage("0", 24, legacy=True, view=view)
        with pytest.raises(CorruptFileError, match="view metadata is malformed"):
            torch_file.read(save(forge.legacy_bytes(forge.tensor(stored, (8,), (1,)), {"0": (24, raw)})))


def test_tensor_of_the_first_torch_and_the_source_beside_it(save):
    fields = (
        forge.storage("0", 24, legacy=True) + forge.number(2) + forge.numbers([3, 2]) + forge.numbers([1, 3])
    )
    source = (
        forge.text("module"),
        forge.name("torch", "Tensor"),
        forge.text("tensor.py"),
        forge.text("class"),
    )
    body = forge.mapping(
        w=forge.call("torch._utils", "_rebuild_tensor", fields), kind=b"(" + b"".join(source) + b"tQ"
    )
    found = torch_file.read(save(forge.legacy_bytes(body, {"0": (24, FLOATS.tobytes())})))
    np.testing.assert_array_equal(found["w"], [[2, 5], [3, 6], [4, 7]])
    assert found["kind"] == "torch.Tensor"


# clear refusals

OTHER_FILES = {
    "text file": b"epoch 1: loss 0.3\n",
    "empty": b"",
    "GGUF": b"GGUF\3\0\0\0",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "gzip": b"\x1f\x8b\x08",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "web page": b"<!DOCTYPE html>",
    "safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "plain pickle": pickle.dumps({"a": 1}, 2),
    "tar file": b"storages".ljust(257, b"\0") + b"ustar\0",
    "unknown": bytes(range(256)),
    "npz": forge.pack({"w.npy": b"\x93NUMPY"}),
    "without data.pkl": forge.pack({"a/readme": b"hello"}),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_named_for_what_they_are(save, kind):
    with pytest.raises(NotReadableError, match=rf"^model\.pt: .*{kind}") as caught:
        torch_file.open_file(save(OTHER_FILES[kind]))
    assert "\n" not in str(caught.value)


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path = pathlib.Path()
    with pytest.raises(NotReadableError, match="no such file"):
        torch_file.open_file(tmp_path / "absent.pt")
    with pytest.raises(NotReadableError, match="directory"):
        torch_file.open_file(tmp_path)
    with pytest.raises(NotReadableError):
        torch_file.open_file("a\0b.pt")
    with pytest.raises(NotReadableError):
        torch_file.open_file(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(NotReadableError, match="regular"):
        torch_file.open_file(tmp_path / "pipe.pt")
    secret = tmp_path / "secret.pt"
    secret.write_bytes(one_tensor((2,), (1,)))
    secret.chmod(0)

    def refuse(self, *_args):
        raise PermissionError(13, "Permission denied", str(self))

    if os.geteuid() == 0:
        monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(NotReadableError, match="permission"):
        torch_file.open_file(secret)


def test_a_file_that_cannot_be_mapped_is_told(save, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(19, "No such device")

    path = save(one_tensor((2,), (1,)))
    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(
        NotReadableError, match=r"^model\.pt: cannot be mapped into memory \(.*No such device\)"
    ):
        torch_file.open_file(path)


def test_symbolic_link_is_followed(save, tmp_path):
    link = tmp_path / "link.pt"
    link.symlink_to(tmp_path / save(one_tensor((24,), (1,))))
    np.testing.assert_array_equal(torch_file.read(link)["w"], FLOATS)


def test_every_truncation_of_a_zip_file_is_an_error(save):
    content = one_tensor((24,), (1,))
    for length in range(1, len(content)):
        with pytest.raises(CheckpointError) as caught:
            torch_file.read(save(content[:length]))
        assert "\n" not in str(caught.value)
    with pytest.raises(TruncatedFileError, match="fetch"):
        torch_file.read(save(content[:-30]))


def test_torchscript_is_refused_with_advice(save):
    content = forge.zip_bytes(forge.whole(b"}"), constants__pkl=None, **{"code__x.py": b"def f(): pass"})
    with pytest.raises(UnsupportedTensorError, match="state_dict"):
        torch_file.open_file(save(content))


@pytest.mark.parametrize(
    "body, reason",
    [
        (forge.call("torch._utils", "_rebuild_sparse_tensor", b"N", b"N"), "sparse"),
        (forge.call("torch._utils", "_rebuild_qtensor", b"N"), "quantised"),
        (forge.call("torch._utils", "_rebuild_meta_tensor_no_storage", b"N"), "meta"),
        (forge.tensor(forge.storage("0", 4, "QInt8Storage"), (4,), (1,)), "quantised"),
        (
            forge.tensor(
                forge.storage("0", 4, "storage.UntypedStorage"),
                (1,),
                (1,),
                tail=forge.name("torch", "complex32"),
            ).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"),
            "complex32",
        ),
        (pickle.dumps(np.array(["a"]), 2)[2:-1], "U1"),
        (pickle.dumps(np.array([None]), 2)[2:-1], "O8"),
        (pickle.dumps(np.zeros(1, [("a", "f4")]), 2)[2:-1], "V4"),
    ],
)
def test_tensor_without_counterpart_is_refused_in_one_line(save, body, reason):
    with pytest.raises(UnsupportedTensorError, match=reason) as caught:
        torch_file.open_file(save(forge.zip_bytes(forge.whole(body), {"0": b"1234"})))
    assert "model.pt: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_class_names_itself_and_the_others(save):
    body = b"](" + forge.call("torch.nn.modules.linear", "Linear") + forge.call("mymodel", "Net") + b"e"
    with pytest.raises(UnsafePickleError, match=r"Linear.*'mymodel\.Net'.*state_dict") as caught:
        torch_file.open_file(save(forge.zip_bytes(forge.whole(body))))
    assert caught.value.global_name == "torch.nn.modules.linear.Linear"


# real files


@golden.needs_golden
@pytest.mark.parametrize("family", ["ultra_sparse", "sprout", "ten", "force_field", "sparse_inference"])
def test_golden_files_load_with_expected_globals(family):
    paths = sorted((golden.ROOT / family).glob("*.pt"))
    assert paths
    known = {"collections.OrderedDict", "pathlib.PosixPath", "torch.FloatStorage", "torch.LongStorage"}
    for path in paths:
        opened = torch_file.open_file(path)
        assert set(opened.globals) <= known | {"torch._utils._rebuild_tensor_v2"}
        arrays = [ref.view() for ref in opened.tensors()]
        assert arrays
        assert all(np.isfinite(array).all() for array in arrays)


@golden.needs_golden
def test_published_ultra_sparse_file_has_the_specified_content():
    found = torch_file.read(golden.path("ultra_sparse", "ultra_sparse_mse0.000303.pt"))
    pairs = [[101, 195], [117, 4], [146, 121], [45, 235], [15, 4], [84, 179], [189, 4], [127, 50]]
    np.testing.assert_array_equal(found["input_indices"], pairs)
    assert found["input_indices"] is found["state_dict"]["input_indices"]
    assert list(found["state_dict"]) == ["w1", "b1", "w2", "b2", "input_indices"]
    assert found["selection"] == {"true_ratio": 0.25, "true_inputs": [4, 15]}
    assert found["stats"]["mse"] == pytest.approx(0.00030263, abs=5e-9)
    assert found["stats"]["parameters"] == 33


@golden.needs_golden
def test_legacy_and_zip_file_of_one_model_agree():
    legacy = torch_file.read(golden.path("ultra_sparse", "format_legacy_zip_off_sparse.pt"))
    modern = torch_file.read(golden.path("ultra_sparse", "format_bare_sparse.pt"))
    assert legacy.keys() == modern.keys()
    for key, array in modern.items():
        assert array.dtype == legacy[key].dtype
        np.testing.assert_array_equal(array, legacy[key])


def test_threads_may_view_one_file_at_once(tmp_path):
    path = tmp_path / "many.pt"
    torch_file.write({str(i): np.full(1000, i, np.float32) for i in range(50)}, path)
    refs = list(torch_file.open_file(path).tensors())
    sums: list[float] = []
    workers = [
        threading.Thread(target=lambda: sums.append(sum(float(ref.view()[0]) for ref in refs)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sums == [1225.0] * 4
