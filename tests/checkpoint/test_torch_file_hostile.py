"""Files made to run code, to fill memory, to hang or to lie: each is refused, and nothing happens."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    TruncatedFileError,
    UnsafePickleError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.torch_format.torch_globals import ALLOWED
from tests.checkpoint import torch_forge as forge
from tests.checkpoint.torch_fuzz import watched
from tests.time_limits import cpu_seconds

FLOATS = np.arange(24, dtype=np.float32)
PLAIN = forge.tensor(forge.storage("0", 24), (24,), (1,))
EMPTY_ARRAY = forge.call(
    "numpy._core.multiarray", "_reconstruct", forge.name("numpy", "ndarray"), b"K\0\x85", forge.text("b")
)
F4 = forge.call("numpy", "dtype", forge.text("f4"), b"\x89", b"\x88")


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Reads hostile content under watch; gives the error."""
    monkeypatch.chdir(tmp_path)  # messages then hold the file's name and not the test's

    def attempt(content: bytes, kind: type[CheckpointError] = CheckpointError) -> CheckpointError:
        path = Path("hostile.pt")
        path.write_bytes(content)
        with cpu_seconds(2), watched() as events, pytest.raises(kind) as caught:
            torch_file.read(path)
        assert not events
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("hostile.pt: ")
        return caught.value

    return attempt


class Payload:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


# code

GLOBALS = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("__builtin__", "compile"),
    ("subprocess", "Popen"),
    ("torch._utils", "os"),
    ("torch._utils", "os.system"),
    ("torch", "_utils.os.system"),
    ("torch", "_utils._rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.hub", "load"),
    ("torch", "load"),
    ("torch.jit", "_load_for_lite_interpreter"),
    ("numpy.f2py", "compile"),
    ("numpy.f2py.crackfortran", "getlincoef"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "_reconstruct.__class__"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "OrderedDict.fromkeys"),
    ("collections", "namedtuple"),
    ("_codecs", "decode"),
    ("codecs", "encode"),
    ("pathlib", "Path.unlink"),
    ("pathlib", "Path"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("copyreg", "_reconstructor"),
    ("", ""),
    ("builtins", ""),
    ("os\x1b[31m", "system"),
]


@pytest.mark.parametrize("module, attribute", GLOBALS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_global_outside_the_list_runs_nothing_and_is_named(refused, module, attribute, protocol):
    if protocol == 2:
        found = forge.name(module, attribute)
    else:
        found = forge.text(module) + forge.text(attribute) + b"\x93"
    body = found + b"(" + forge.text("touch /tmp/owned") + b"tR"
    error = refused(forge.zip_bytes(forge.whole(body, protocol)), UnsafePickleError)
    assert error.global_name == f"{module}.{attribute}"
    assert ascii(f"{module}.{attribute}") in str(error)


@pytest.mark.parametrize("make", ["zip", "legacy"])
def test_real_exploit_of_the_standard_pickler(refused, make):
    exploit = pickle.dumps(Payload(os.system, "touch owned"), 2)
    nested = pickle.dumps({"state_dict": {"w": Payload(eval, "1+1"), "v": Payload(os.getcwd)}}, 2)
    for content in (exploit, nested):
        body = content[2:-1]
        refused(
            forge.zip_bytes(content) if make == "zip" else forge.legacy_bytes(body, {}), UnsafePickleError
        )


def test_exploit_in_any_pickle_of_a_legacy_file(refused):
    exploit = pickle.dumps(Payload(os.system, "true"), 2)
    magic = pickle.dumps(forge.MAGIC, 2)
    refused(magic + exploit, UnsafePickleError)
    refused(magic + pickle.dumps(1001, 2) + exploit, UnsafePickleError)
    good = forge.legacy_bytes(b"}", {})
    refused(good[: good.rindex(b"\x80\x02")] + exploit, UnsafePickleError)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: bad + b")\x81",  # NEWOBJ
        lambda bad: bad + b")}\x92",  # NEWOBJ_EX
        lambda bad: b"(" + bad + forge.text("x") + b"o",  # OBJ
        lambda bad: b"(" + forge.text("x") + b"ios\nsystem\n",  # INST
        lambda bad: bad + b"}(" + forge.text("__class__") + bad + b"ub",  # BUILD
        lambda bad: bad + forge.number(1) + b"a" + forge.text("a") + b"Ns(" + b"e(u(\x90",
        lambda bad: b"}" + bad + b"Ns",
        lambda bad: b"\x8f(" + bad + b"\x90",
        lambda bad: forge.ordered_dict() + b"}" + forge.text("_metadata") + bad + b"sb",
        lambda bad: forge.name("torch", "Size") + bad + b"R",
        lambda bad: forge.name("torch", "Size") + b"(" + bad + b"tR",
        lambda bad: forge.name("collections", "defaultdict") + b"(" + bad + b"tR",
        lambda bad: (
            b"(" + forge.text("storage") + bad + forge.text("0") + forge.text("cpu") + forge.number(0) + b"tQ"
        ),
        lambda bad: bad + b")R)R)R",
        lambda bad: bad + b"0N",
    ],
)
def test_no_opcode_makes_use_of_a_refused_global(refused, wrap):
    body = wrap(forge.name("os", "system"))
    error = refused(forge.zip_bytes(forge.whole(body)), UnsafePickleError)
    assert error.global_name == "os.system"


def test_other_names_are_counted(refused):
    body = b"](" + b"".join(forge.name("evil", f"f{i}") for i in range(9)) + b"e"
    assert "'evil.f1'" in str(refused(forge.zip_bytes(forge.whole(body)), UnsafePickleError))
    assert "and 3 more" in str(refused(forge.zip_bytes(forge.whole(body)), UnsafePickleError))


def test_refusal_wins_over_later_damage(refused):
    refused(forge.zip_bytes(b"\x80\x02" + forge.name("os", "system") + b"\xff\xff"), UnsafePickleError)


def test_every_allowed_name_is_inert():
    """What the list maps to is our own: no module, no attribute of torch, numpy or the interpreter."""
    for name, token in ALLOWED.items():
        assert type(token).__module__.startswith("sparsejax.checkpoint."), name
        call = getattr(token, "call", None)
        assert call is None or call.__module__.startswith("sparsejax.checkpoint."), name


@pytest.mark.parametrize(
    "body",
    [
        forge.number(1) + b")R",
        forge.text("os.system") + b")R",
        b"})R",
        forge.name("builtins", "int") + b")R",
        forge.name("builtins", "list") + b")R",
        forge.name("torch", "FloatStorage") + b")R",
        forge.name("torch", "float32") + b")R",
        forge.name("torch", "Tensor") + b")\x81",
        b"]}b",
        b"}}b",
        forge.text("x") + b"}b",
        forge.call("torch", "device", forge.text("cpu")) + b"}b",
        PLAIN + b"}b",
        forge.name("torch", "float32") + b"}b",
        forge.name("collections", "OrderedDict") + b"}b",
        forge.ordered_dict() + forge.number(3) + b"a",
        forge.name("torch", "Size") + b"(" + forge.text("x") + b"tR",
        forge.name("collections", "OrderedDict") + b"NR",
        forge.name("collections", "OrderedDict") + b"(((" + b"]" + b"NttttR",
        forge.name("_codecs", "encode") + b"(" + forge.text("a") + forge.text("rot13") + b"tR",
        forge.name("_codecs", "encode") + b"(" + forge.text("\u1234") + forge.text("latin1") + b"tR",
        forge.name("__builtin__", "bytearray") + b"(J\xff\xff\xff\x7ftR",
        forge.name("__builtin__", "bytes") + b"(J\xff\xff\xff\x7ftR",
        forge.name("__builtin__", "complex") + b"(" + forge.text("1") + b"tR",
        forge.call("torch._tensor", "_rebuild_from_type_v2", forge.name("torch", "device"), b"N", b")", b"}"),
        forge.call("torch._tensor", "_rebuild_from_type_v2", forge.text("os.system"), b"N", b")", b"}"),
        forge.call("pathlib", "PosixPath", forge.number(1)),
        b"\x80\x06N",
        b"\x82\x01",  # extension registry
        b"\x97",  # out-of-band buffer
        b"Pstorage\n",
        forge.text("storage") + b"Q",
        b"(tQ",
        b"h\x05",
        b"j\xff\xff\xff\xff",
        b"0",
        b"1",
        b"t",
        b"R",
        b"N\x87",
        b"}NNNuN",
        b"}(Nu",
        b"}]Ns",
        b"}}Ns",
        b"}" + PLAIN + b"Ns",
        b"\x8f(]\x90",
        b"(]\x91",
        b"}" + forge.number(2**61) + b"Ns",
        b"I1x\n",
        b"F1x\n",
        b"S'abc\n",
        b"V\\uZZZZ\n",
        b"X\x01\x00\x00\x00\xff",
        b"I" + b"9" * 5000 + b"\n",
    ],
)
def test_malformed_pickle_is_corrupt(refused, body):
    refused(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()}), CorruptFileError)


LONE = forge.storage("0", 24) + forge.number(0) + forge.numbers([2]) + forge.numbers([1]) + b"\x89N"


@pytest.mark.parametrize(
    "body, reason",
    [
        (forge.call("collections", "OrderedDict", b"](]K\x01aNae"), "has a key that is not text"),
        (forge.call("collections", "OrderedDict", b"}"), "a container made of something else than a list"),
        (forge.call("builtins", "set", b")"), "a container made of something else than a list"),
        (forge.call("collections", "Counter", b"]"), "a Counter of something else than counts"),
        (forge.call("builtins", "bytearray", b"N"), "a bytearray of something else than bytes"),
        (forge.call("builtins", "complex", b"K\x01", b"K\x02"), "a complex number of something else"),
        (forge.call("torch", "device", b"K\x01"), "a torch.device of something else"),
        (forge.call("torch", "device", forge.text("cuda"), b"\x88"), "a torch.device of something else"),
        (forge.call("torch.serialization", "_get_layout", b"K\x01"), "a layout's name is not text"),
        (forge.call("torch._utils", "_rebuild_tensor_v3", LONE, b"N"), "a tensor without a dtype"),
        (
            forge.call("torch._utils", "_rebuild_tensor_v2", LONE, forge.mapping(conj=b"\x88")),
            "without signs",
        ),
        (forge.name("torch.serialization", "_get_layout") + b")\x81", "an object made of the function"),
    ],
)
def test_call_with_other_arguments_is_told(refused, body, reason):
    error = refused(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()}), CorruptFileError)
    assert reason in str(error)


def test_storage_in_the_head_of_a_legacy_file(refused):
    head = pickle.dumps(forge.MAGIC, 2) + forge.whole(forge.storage("0", 24, legacy=True))
    assert "a storage where none belongs" in str(refused(head, CorruptFileError))


@pytest.mark.parametrize("opcode", [b"X", b"B", b"T", b"\x8b", b"\x8d", b"\x8e", b"\x96", b"\x95"])
@pytest.mark.parametrize("length", [2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
def test_announced_length_beyond_the_file(refused, opcode, length):
    size = 8 if opcode in (b"\x8d", b"\x8e", b"\x96", b"\x95") else 4
    raw = opcode + (length % 2 ** (8 * size)).to_bytes(size, "little")
    tracemalloc.start()
    try:
        error = refused(forge.zip_bytes(forge.whole(raw, 5)), TruncatedFileError)
        assert "announces" in str(error) or "longer than" in str(error)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# memory and time


def repeated(unit: bytes, count: int, before: bytes = b"](", after: bytes = b"e") -> bytes:
    return forge.whole(before + unit * count + after, 4)


PATH = forge.name("pathlib", "PosixPath") + b"q\0(" + 60 * b"X\1\0\0\0a" + b"tq\1]("
BOMBS = {
    "lists": repeated(b"]", 1_000_000),
    "dicts": repeated(b"}", 1_000_000),
    "sets": repeated(b"\x8f", 1_100_000),
    "tuples": repeated(b")\x85", 2_300_000),
    "marks": repeated(b"(", 2_500_000, b"", b""),
    "memo": repeated(b"\x94", 2_500_000, b"N", b""),
    "dicts of one": repeated(b"}h\0h\0s", 500_000, b"Nq\0]("),
    "ordered dicts": repeated(b"h\0)R", 900_000, forge.name("collections", "OrderedDict") + b"q\0]("),
    "paths": repeated(b"h\0h\1R", 200_000, PATH),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickle_that_unfolds_stays_within_its_budget(tmp_path, bomb):
    path = tmp_path / "bomb.pt"
    content = forge.zip_bytes(BOMBS[bomb])
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptFileError, match="unfolds to far more"):
        torch_file.read(path)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert extra <= 4 * len(content) + (256 << 20)


def test_copying_constructors_are_charged(refused):
    """A few bytes of pickle that copy one long list again and again."""
    members = b"](" + b"".join(b"M" + struct.pack("<H", i) for i in range(30000)) + b"e\x85q\1"
    for kind in ("set", "frozenset"):
        body = forge.name("__builtin__", kind) + b"q\0" + members + b"](" + b"h\0h\1R" * 20000 + b"e"
        refused(forge.zip_bytes(forge.whole(body)), CorruptFileError)
    array = pickle.dumps(np.zeros(50000, ">f4"), 2)[2:-1]  # a byte-swapped copy of one buffer each time
    state = array[array.rindex(b"(K\x01") : -1]
    start = array[: array.rindex(b"(K\x01")]
    body = b"](" + start + state + b"q\x64b" + (EMPTY_ARRAY + b"h\x64b") * 20000 + b"e"
    assert "unfolds to far more" in str(refused(forge.zip_bytes(forge.whole(body)), CorruptFileError))


@pytest.mark.parametrize("count", [150, 10_000, 300_000])
def test_deep_nesting_is_refused(refused, count):
    assert "more than 100 deep" in str(
        refused(forge.zip_bytes(forge.whole(b"]" * count + b"a" * (count - 1))))
    )
    refused(forge.zip_bytes(forge.whole(b"N" + b"\x85" * count)))
    refused(forge.zip_bytes(forge.whole(b"}N" * count + b"N" + b"s" * count)))


def test_containers_that_hold_themselves_are_refused(refused):
    assert "holds itself" in str(refused(forge.zip_bytes(forge.whole(b"]q\0h\0a"))))
    refused(forge.zip_bytes(forge.whole(b"]q\0(h\0\x85q\1a")))
    refused(forge.zip_bytes(forge.whole(b"}q\0Nh\0s")))
    od = forge.ordered_dict() + b"q\0}" + forge.text("_metadata") + b"}" + forge.text("a") + b"h\0ssb"
    refused(forge.zip_bytes(forge.whole(od)))


def doubled(times: int) -> bytes:
    return b"Nq\0" + b"h\0h\0\x86q\0" * times


def test_doubling_by_sharing_is_refused(refused):
    assert "multiply" in str(refused(forge.zip_bytes(forge.whole(doubled(60)))))
    lists = b"]q\0" + b"](h\0h\0eq\0" * 60
    refused(forge.zip_bytes(forge.whole(lists)))


def test_keys_cannot_hang_the_hash(refused):
    for use in (b"}h\0Ns", b"\x8f(h\0\x90", b"(h\0\x91", forge.name("builtins", "set") + b"]h\0a\x85R"):
        error = refused(forge.zip_bytes(forge.whole(doubled(60) + use, 4)), CorruptFileError)
        assert "a key of more than" in str(error)
    colliding = [forge.number(i * (2**61 - 1)) for i in range(1, 20_000)]
    for use in (
        b"}(" + b"N".join(colliding) + b"Nu",
        forge.name("builtins", "set") + b"](" + b"".join(colliding) + b"e\x85R",
    ):
        error = refused(forge.zip_bytes(forge.whole(use)), CorruptFileError)
        assert "61 bits" in str(error)
    tuples = b"".join(forge.number(i) + b"\x85N" for i in range(10_000))
    assert "tuples as keys" in str(refused(forge.zip_bytes(forge.whole(b"}(" + tuples + b"u"))))


# tensors that lie


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2, 13), (12, 1), 0),
        ((1,), (1,), 24),
        ((2,), (24,), 0),
        ((0,), (1,), 25),
        ((2,), (-1,), 5),
        ((-1,), (1,), 0),
        ((1,), (1,), -1),
        ((2**62,), (0,), 0),
        ((2**31, 2**31), (0, 0), 0),
        ((2**63, 1), (1, 1), 0),
        ((2,), (2**63,), 0),
        ((0, 2**61, 2**61), (1, 1, 1), 0),
        ((2, 2), (1,), 0),
        ((1,) * 65, (1,) * 65, 0),
    ],
)
def test_tensor_outside_its_storage(refused, shape, strides, offset):
    body = forge.tensor(forge.storage("0", 24), shape, strides, offset)
    refused(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()}), CorruptFileError)


@pytest.mark.parametrize("numel", [25, 2**40, 2**64, -1])
@pytest.mark.parametrize("legacy", [False, True])
def test_storage_larger_than_its_record(refused, numel, legacy):
    body = forge.tensor(forge.storage("0", numel, legacy=legacy), (1,), (1,))
    raw = FLOATS.tobytes()
    count = numel if 0 <= numel < 2**63 else 24
    refused(
        forge.legacy_bytes(body, {"0": (count, raw)})
        if legacy
        else forge.zip_bytes(forge.whole(body), {"0": raw})
    )


@pytest.mark.parametrize(
    "stored",
    [
        forge.storage("1", 24),
        forge.storage("../0", 24),
        forge.storage("0", 24) + b"0" + forge.storage("0", 12),
        forge.storage("0", 24) + b"0" + forge.storage("0", 24, "IntStorage"),
        b"("
        + forge.text("storage")
        + forge.text("FloatStorage")
        + forge.text("0")
        + forge.text("cpu")
        + b"K\x18tQ",
        b"("
        + forge.text("module")
        + forge.name("torch", "FloatStorage")
        + forge.text("0")
        + forge.text("cpu")
        + b"K\x18tQ",
        b"("
        + forge.text("storage")
        + forge.name("torch", "FloatStorage")
        + forge.text("0")
        + forge.text("cpu")
        + b"\x88tQ",
        b"("
        + forge.text("storage")
        + forge.name("torch", "FloatStorage")
        + b"K\0"
        + forge.text("cpu")
        + b"K\x18tQ",
    ],
)
def test_storage_that_is_missing_or_contradicts_itself(refused, stored):
    body = forge.tensor(stored, (1,), (1,))
    refused(forge.zip_bytes(forge.whole(body), {"0": FLOATS.tobytes()}), CorruptFileError)


def test_expanded_tensors_cannot_fill_the_memory(refused):
    big = forge.tensor(forge.storage("0", 24), (2**20,), (0,))
    refused(forge.zip_bytes(forge.whole(big), {"0": FLOATS.tobytes()}), CorruptFileError)
    many = b"".join(forge.tensor(forge.storage("0", 24), (1000, 10), (0, i)) for i in range(1, 3))
    crowd = (
        b"]("
        + many
        + b"".join(forge.tensor(forge.storage("0", 24), (1000 + i, 10), (0, 1)) for i in range(60))
        + b"e"
    )
    error = refused(forge.zip_bytes(forge.whole(crowd), {"0": FLOATS.tobytes()}), CorruptFileError)
    assert "contiguous" in str(error)


@pytest.mark.parametrize(
    "state, reason",
    [
        (b"(K\x01K\x08\x85h\0\x89" + forge.text("abcd") + b"t", "bytes do not fill its shape"),
        (b"(K\x01J\xff\xff\xff\xff\x85h\0\x89" + forge.text("abcd") + b"t", "shape is malformed"),
        (b"(K\x01\x8a\x09" + bytes(8) + b"\1\x85h\0\x89" + forge.text("") + b"t", "shape is malformed"),
        (b"(K\x01Nh\0\x89" + forge.text("abcd") + b"t", "shape is malformed"),
        (b"(K\x01K\x01\x85N\x89" + forge.text("abcd") + b"t", "without a dtype"),
        (b"(K\x01K\x01\x85h\0\x89Nt", "without its bytes"),
        (b"]", "state is malformed"),
        (b"N", "state is malformed"),
    ],
)
def test_numpy_array_that_lies(refused, state, reason):
    error = refused(
        forge.zip_bytes(forge.whole(F4 + b"q\0" + b"0" + EMPTY_ARRAY + state + b"b")), CorruptFileError
    )
    assert reason in str(error)


def test_numpy_array_in_no_order_that_is_known(refused):
    raw = (forge.text("abcd"), F4, b"K\x01\x85", forge.text("K"))
    body = forge.call("numpy._core.numeric", "_frombuffer", *raw)
    error = refused(forge.zip_bytes(forge.whole(body)), UnsupportedTensorError)
    assert "axis order 'K' is refused" in str(error)


# containers that lie


def entries(body: bytes = PLAIN) -> dict[str, bytes]:
    return {
        "a/data.pkl": forge.whole(body),
        "a/byteorder": b"little",
        "a/data/0": FLOATS.tobytes(),
        "a/version": b"3\n",
    }


def test_compressed_entries_are_refused(refused):
    bomb = entries() | {"a/data/0": bytes(50_000_000)}
    error = refused(forge.pack(bomb, zipfile.ZIP_DEFLATED), CorruptFileError)
    assert "compressed entries are refused" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "a/../b",
        "a//b",
        "/etc/passwd",
        "../x",
        "b/x",
        "a/./x",
        "a\\x",
        "a/x\\..\\y",
        "data/0",
        "C:/x",
        "a/..",
        "a/data.pkl/..",
    ],
)
def test_names_outside_the_root_folder(refused, name):
    refused(forge.pack(entries() | {name: b"x"}), CorruptFileError)


def test_two_roots_and_duplicates(refused):
    assert "2 folders" in str(
        refused(forge.pack(entries() | {"b/data.pkl": forge.whole(b"N")}), CorruptFileError)
    )
    twice = forge.pack(entries() | {"a/data/1": b"x" * 96})
    assert "two records" in str(refused(twice.replace(b"a/data/1", b"a/data/0"), CorruptFileError))


def directory(content: bytes) -> int:
    return content.index(b"PK\x01\x02")


def entry_of(content: bytes, name: bytes) -> int:
    """Position of a record's directory entry."""
    return content.rindex(name, 0, content.rindex(b"PK\x05\x06")) - 46


@pytest.mark.parametrize(
    "field, value",
    [
        (20, struct.pack("<LL", 97, 97)),  # sizes beyond the record, into the next header
        (20, struct.pack("<LL", 2**31, 2**31)),
        (20, struct.pack("<LL", 2**32 - 1, 2**32 - 1)),
        (20, struct.pack("<LL", 95, 96)),
        (42, struct.pack("<L", 0)),  # the header of data.pkl
        (42, struct.pack("<L", 2**31)),
        (42, struct.pack("<L", 5)),
        (8, struct.pack("<H", 1)),  # encrypted
        (8, struct.pack("<H", 0x41)),
        (10, struct.pack("<H", 8)),  # deflated
        (10, struct.pack("<H", 93)),
        (16, b"\0\0\0\0"),
    ],
)
def test_directory_that_lies(refused, field, value):
    content = bytearray(forge.pack(entries()))
    at = entry_of(bytes(content), b"a/data/0") + field
    content[at : at + len(value)] = value
    refused(bytes(content), CorruptFileError)


@pytest.mark.parametrize(
    "field, value",
    [(0, b"PKxx"), (6, b"\1\0"), (8, b"\x08\0"), (26, b"\7\0"), (26, b"\xff\xff"), (28, b"\4\0"), (30, b"b")],
)
def test_local_header_that_lies(refused, field, value):
    content = bytearray(forge.pack(entries()))
    at = content.index(b"a/data/0") - 30 + field
    content[at : at + len(value)] = value
    refused(bytes(content))


def test_records_that_overlap(refused):
    content = bytearray(forge.pack(entries() | {"a/data/1": FLOATS.tobytes()}))
    first, second = (entry_of(bytes(content), name) for name in (b"a/data/0", b"a/data/1"))
    size = struct.unpack_from("<L", content, first + 20)[0]
    content[first + 20 : first + 28] = struct.pack("<LL", size + 40, size + 40)
    assert second > first
    assert "records of the archive overlap" in str(refused(bytes(content), CorruptFileError))


@pytest.mark.parametrize("size", [97, 140, 2**31])
def test_record_that_reaches_into_the_directory(refused, size):
    """Where no checksum would tell: the last record, said to be longer than what is left."""
    last = entries() | {"a/version": b"3\n"}
    last["a/data/0"] = last.pop("a/data/0")
    content = bytearray(forge.without_checksums(forge.pack(last)))
    at = entry_of(bytes(content), b"a/data/0") + 20
    content[at : at + 8] = struct.pack("<LL", size, size)
    assert "beyond the archive" in str(refused(bytes(content), CorruptFileError))


@pytest.mark.parametrize(
    "record",
    [{"byteorder": b"native"}, {"byteorder": b""}, {"version": b"11\n"}, {"version": b"x"}, {"version": b""}],
)
def test_records_with_impossible_content(refused, record):
    kept = {"version": b"3\n"} | record
    refused(forge.pack(entries() | {f"a/{key}": raw for key, raw in kept.items()}), CorruptFileError)


def test_directory_of_twenty_thousand_entries_is_quick(tmp_path):
    path = tmp_path / "many.pt"
    path.write_bytes(forge.pack(entries() | {f"a/x{i}": b"" for i in range(20_000)}))
    with cpu_seconds(2):
        np.testing.assert_array_equal(torch_file.read(path), FLOATS)
