"""GGUF files are read exactly, and those that lie are refused by the name and the byte of the lie."""

from __future__ import annotations

import errno
import os
import struct
import time
import tracemalloc

import numpy as np
import pytest

from sparsejax.checkpoint.errors import CheckpointError, GGUFError, NotReadableError, TruncatedFileError
from sparsejax.checkpoint.gguf import StringArray, read_gguf
from sparsejax.checkpoint.gguf import cursor as cursor_room
from sparsejax.checkpoint.gguf import reader as room
from tests import golden
from tests.checkpoint.gguf import forge

FAMILY = "sparse_inference"
BAD = golden.document(FAMILY, "bad_a") if golden.AVAILABLE else {}
FILES = ("tiny_a", "llama_tiny_f32", "llama_tiny_q8_0")


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: bytes, **options):
        path = tmp_path / "x.gguf"
        path.write_bytes(content)
        return read_gguf(path, **options)

    return write_and_read


@pytest.fixture
def refused(read):
    def error_of(content: bytes, kind: type[GGUFError] = GGUFError) -> GGUFError:
        with pytest.raises(kind) as caught:
            read(content)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
        assert "x.gguf: " in str(caught.value)
        return caught.value

    return error_of


# what is there


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 64, 8, 4096])
def test_every_type_of_value_and_tensor(read, version, alignment):
    file = read(forge.small(alignment, version))
    assert (file.version, file.alignment) == (version, alignment)
    assert file.data_offset % alignment == 0
    numbers = {key[7:]: value for key, value in file.metadata.items() if key.startswith("number.")}
    expected = {"u8": 200, "i8": -5, "u16": 60000, "i16": -30000, "u32": 7, "i32": -7, "u64": 1 << 40}
    expected |= {"i64": -(1 << 40), "f32": 1.5, "f64": 3.25, "bool": True}
    assert numbers == expected and numbers["bool"] is True
    assert {type(value) for value in numbers.values()} == {int, float, bool}
    assert all(file.types[f"number.{kind}"] == kind for kind in numbers)
    assert file.metadata["text"] == "πβ"
    assert file.metadata["words"] == ["a", "", "日本", "é"]
    assert file.metadata["floats"].dtype == np.float32 and file.metadata["floats"].tolist() == [1.5, 2.5]
    assert file.metadata["flags"].tolist() == [True, False]
    assert list(file.metadata["none"]) == [] and file.metadata["no_numbers"].dtype == np.uint16
    assert file.types["words"] == "[str]" and file.types["flags"] == "[bool]"
    a, b, c = file.tensors.values()
    assert (a.name, a.shape, a.format, a.nbytes) == ("a", (3, 4), "f32", 48)
    assert np.array_equal(a.dequantize(), np.arange(12, dtype=np.float32).reshape(3, 4))
    assert (b.shape, b.format, b.nbytes) == ((2, 32), "q8_0", 68)
    assert np.array_equal(b.dequantize(), np.tile(np.arange(32) * 0.5, (2, 1)))
    assert c.view().tolist() == [7, -7] and c.dtype == np.int32
    assert [tensor.offset % alignment for tensor in (a, b, c)] == [0, 0, 0]
    assert file.facts()["formats"] == "1 f32, 1 q8_0, 1 i32"
    assert file.nbytes == 48 + 68 + 8
    assert np.array_equal(b.quantized().dequantize(), b.dequantize())
    with pytest.raises(GGUFError, match="tensor 'c' holds i32 numbers, no weights"):
        c.quantized()


def test_rows_are_read_alone(read):
    tensor = read(forge.small()).tensors["a"]
    assert tensor.raw(1, 2).view(np.float32).tolist() == [4, 5, 6, 7]
    assert tensor.raw(3).size == 0
    assert np.array_equal(tensor.raw(), tensor.raw(0, 3))
    assert tensor.raw().ctypes.data % 64 == 0
    for start, stop in ((0, 4), (2, 1), (-1, 2)):
        with pytest.raises(IndexError, match="rows"):
            tensor.raw(start, stop)


def test_scalars_gaps_and_missing_padding_at_the_end(read):
    data = struct.pack("<f", 2.5) + bytes(92) + struct.pack("<f", 3.5)
    file = read(forge.file([], [forge.info("s", (), 0, 0), forge.info("v", (1,), 0, 96)], data))
    assert file.tensors["s"].dequantize() == np.float32(2.5)
    assert file.tensors["v"].dequantize().tolist() == [3.5]
    assert read(forge.file([], [])).tensors == {}


def test_a_large_vocabulary_is_read_in_no_time(read):
    words = [f"▁token{number}" for number in range(128_000)]
    content = forge.file([forge.entry("tokenizer.ggml.tokens", "[str]", words)], [])
    start = time.process_time()
    file = read(content)
    seconds = time.process_time() - start
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert seconds < 0.5
    assert len(tokens) == 128_000 and tokens[127_999] == words[-1] and list(tokens) == words
    assert file.facts()["tokenizer"] == "unnamed, 128,000 tokens"


def test_heads_longer_than_a_chunk(read, monkeypatch):
    monkeypatch.setattr(cursor_room, "_CHUNK", 7)
    whole = read(forge.small())
    assert whole.metadata["words"] == ["a", "", "日本", "é"]
    assert whole.tensors["c"].view().tolist() == [7, -7]


def test_string_arrays_are_sequences():
    words = StringArray.of(["a", "", "日本"])
    assert words[-1] == "日本" and words[0:2] == ["a", ""] and words.index("") == 1
    assert words == StringArray.of(["a", "", "日本"]) == ("a", "", "日本") != ["a"]
    assert words != StringArray.of(["", "a", "日本"]) and words != 3
    assert "日本" in repr(words) and "3 strings" in repr(words)
    with pytest.raises(IndexError):
        words[3]


@pytest.mark.golden("gguf_file_a")
def test_golden_file():
    file = read_gguf(golden.path(FAMILY, "tiny_a.gguf"))
    expected = golden.document(FAMILY, "tiny_a.expected")
    reader = expected["reader"]
    assert (file.data_offset, file.alignment) == (reader["data_offset"], reader["alignment"])
    arrays = golden.arrays(FAMILY, "gguf_file_a")
    assert len(file.tensors) == len(reader["tensors"]) == 13
    for told in reader["tensors"]:
        tensor = file.tensors[told["name"]]
        assert tensor.shape == tuple(reversed(told["shape_ggml"]))
        assert (tensor.kind.code, tensor.nbytes) == (told["type"], told["n_bytes"])
        assert tensor.offset == file.data_offset + told["offset"]
        if f"{tensor.name}|dequant" in arrays:
            assert np.array_equal(tensor.dequantize(), arrays[f"{tensor.name}|dequant"])
    assert file.metadata["test.utf8"] == "πβ" and file.metadata["llama.block_count"] == 3


# what is not


@pytest.mark.golden("gguf_corrupt_a")
@pytest.mark.parametrize("name", BAD)
def test_golden_corrupt_files(name):
    path = golden.path(FAMILY, BAD[name]["file"])
    if name == "version2":
        assert len(read_gguf(path).tensors) == 13
        return
    with pytest.raises(GGUFError, match=f"{path.name}: ") as caught:
        read_gguf(path)
    error = caught.value
    assert isinstance(error, CheckpointError) and "\n" not in str(error)
    assert error.offset is not None or name == "empty"
    if name in ("misaligned_offset", "offset_past_end", "dims_overflow", "zero_dim", "duplicate_name"):
        assert error.tensor == "blk.0.ffn_gate.weight" and repr(error.tensor) in str(error)
    if name == "q8_row_not_multiple":
        assert error.tensor == "blk.0.ffn_down.weight"


@pytest.mark.golden("gguf_corrupt_a")
def test_golden_corrupt_files_are_all_there():
    assert len(BAD) == 28
    told = {"bigendian_version": "big-endian", "magic_powerinfer": "PowerInfer", "empty": "empty"}
    told |= {"removed_tensor_type": "Q4_2", "bad_tensor_type": "4242", "version1": "version 1"}
    for name, words in told.items():
        with pytest.raises(GGUFError, match=words):
            read_gguf(golden.path(FAMILY, BAD[name]["file"]))


F32 = np.zeros(8, np.float32).tobytes()
LIES = {
    "text": (b"hello, world", "begins with b'hell'"),
    "empty": (b"", "an empty file"),
    "lfs": (b"version https://git-lfs", "git lfs pull"),
    "magic": (forge.file([], [], magic=b"PWRI"), "PowerInfer"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 0": (forge.file([], [], version=0), "version 0"),
    "version 4": (forge.file([], [], version=4), "version 4"),
    "many tensors": (forge.file([], [], counts=(1 << 40, 0)), "claims 1099511627776 tensors at byte 8"),
    "many entries": (forge.file([], [], counts=(0, 1 << 63)), "metadata entries at byte 16"),
    "two keys": (forge.file([forge.entry("k", "u8", 1)] * 2, []), "'k' at byte 38 occurs twice"),
    "no key": (forge.file([forge.entry("", "u8", 1)], []), "empty or too long"),
    "bool": (forge.file([forge.entry("k", "bool", 2)], []), "is a bool, which is 0 or 1, not 2"),
    "bools": (forge.file([forge.entry("k", "[bool]", [0, 9])], []), "0 or 1, not 9"),
    "array of arrays": (
        forge.file([forge.string("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(40)], []),
        "arrays themselves",
    ),
    "bad string": (forge.file([forge.entry("k", "str", b"\xff")], []), "no UTF-8"),
    "bad strings": (
        forge.file([forge.entry("k", "[str]", [b"a", b"\xe6\x97", b"\xa5"])], []),
        "string 1 at byte 66 is no UTF-8",
    ),
    "alignment 0": (forge.file([forge.entry("general.alignment", "u32", 0)], []), "power of two"),
    "alignment 24": (forge.file([forge.entry("general.alignment", "u32", 24)], []), "power of two"),
    "alignment text": (forge.file([forge.entry("general.alignment", "str", "32")], []), "power of two"),
    "5 dimensions": (forge.file([], [forge.info("w", (1,) * 5, 0, 0)], F32), "has 5 dimensions"),
    "no name": (forge.file([], [forge.info("", (8,), 0, 0)], F32), "has no name"),
    "past the end": (forge.file([], [forge.info("w", (9,), 0, 0)], F32), "the file ends at"),
    "overlap": (
        forge.file([], [forge.info("v", (16,), 0, 0), forge.info("w", (8,), 0, 32)], F32 * 2),
        "'w' at byte 128 overlaps 'v'",
    ),
    "wrapped product": (forge.file([], [forge.info("w", (1 << 32, 1 << 32), 0, 0)], F32), "the file ends at"),
    "wrapped offset": (forge.file([], [forge.info("w", (8,), 0, (1 << 64) - 32)], F32), "the file ends at"),
    "row of blocks": (forge.file([], [forge.info("w", (16, 2), 2, 0)], F32), "whole blocks of 32"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_named(lie, refused):
    content, words = LIES[lie]
    assert words in str(refused(content))


def test_every_cut_of_a_file_is_told(read, refused):
    content = forge.small()
    last = read(content).tensors["c"]
    for size in {*range(0, last.offset + last.nbytes, 7), last.offset + last.nbytes - 1}:
        assert isinstance(refused(content[:size]), TruncatedFileError), size
    assert read(content[: last.offset + last.nbytes]).tensors["c"].view().tolist() == [7, -7]


def test_claims_cost_no_memory(read):
    claims = [
        forge.file([], [], counts=(1 << 60, 0)),
        forge.file([forge.string("k") + struct.pack("<IIQ", 9, 4, 1 << 60)], []),
        forge.file([forge.string("k") + struct.pack("<IIQ", 9, 8, 1 << 60)], []),
        forge.file([struct.pack("<Q", 1 << 60)], []),
        forge.file([], [forge.info("w", (1 << 62,), 0, 0)], F32),
    ]
    tracemalloc.start()
    for content in claims:
        with pytest.raises(GGUFError):
            read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_counts_and_heads_beyond_reason(read, monkeypatch):
    monkeypatch.setattr(room, "MOST", 1)
    with pytest.raises(GGUFError, match="no model has more than 1"):
        read(forge.small())
    monkeypatch.setattr(cursor_room, "MAX_HEAD", 40)
    with pytest.raises(GGUFError, match="beyond 40 bytes"):
        read(forge.file([forge.entry("k", "str", "a" * 40)], []))


# sound, but of no use


@pytest.mark.parametrize(
    ("code", "name", "dims", "size"),
    [
        (16, "IQ2_XXS", (256,), 66),
        (39, "MXFP4", (32,), 17),
        (35, "TQ2_0", (256,), 66),
        (20, "IQ4_NL", (32,), 18),
    ],
)
def test_types_that_are_not_decoded_are_named(read, code, name, dims, size):
    content = forge.file([], [forge.info("blk.0.w", dims, code, 0)], bytes(size))
    with pytest.raises(GGUFError, match=f"tensor 'blk.0.w' at byte 64 is of type {name}, .*Q4_K") as caught:
        read(content)
    assert caught.value.tensor == "blk.0.w"
    file = read(content, strict=False)
    assert file.tensors["blk.0.w"].nbytes == size and str(file.problem).split(": ")[-1] in str(caught.value)
    for use in ("dequantize", "quantized", "view"):
        with pytest.raises(GGUFError, match=name):
            getattr(file.tensors["blk.0.w"], use)()


def test_parts_of_split_models_are_refused(read):
    entries = [forge.entry("split.count", "u16", 3), forge.entry("split.no", "u16", 0)]
    with pytest.raises(GGUFError, match="part 1 of 3 of a split model"):
        read(forge.file(entries, []))
    assert read(forge.file([forge.entry("split.count", "u16", 1)], [])).problem is None


@pytest.mark.parametrize(
    "name",
    [
        "blk.3.ffn_gate_exps.weight",
        "blk.0.ffn_gate_inp.weight",
        "blk.0.ffn_up.7.weight",
        "blk.1.ffn_up_shexp.weight",
    ],
)
def test_mixtures_of_experts_are_refused(read, name):
    content = forge.file([], [forge.info(name, (8,), 0, 0)], F32)
    with pytest.raises(GGUFError, match=f"tensor '{name}'.*mixture of experts"):
        read(content)
    assert read(content, strict=False).tensors[name].dequantize().tolist() == [0] * 8


# files that are not what they were


def test_a_file_that_shrinks_while_it_is_open(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small())
    file = read_gguf(path)
    os.truncate(path, file.tensors["b"].offset + 10)
    with pytest.raises(GGUFError, match=r"tensor 'b' at byte \d+: the file shrank to \d+ bytes") as caught:
        file.tensors["b"].dequantize()
    assert caught.value.tensor == "b" and caught.value.offset == file.tensors["b"].offset
    os.truncate(path, 0)
    with pytest.raises(GGUFError, match="shrank to 0 bytes"):
        file.tensors["a"].raw()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            OSError(errno.EIO, "Input/output error"),
            r"tensor 'a' at byte \d+ cannot be read \(Input/output error\)",
        ),
        (0, "the file shrank"),
    ],
    ids=["refused", "shrinks meanwhile"],
)
def test_a_read_that_fails_names_the_tensor(tmp_path, monkeypatch, answer, words):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small())
    tensor = read_gguf(path).tensors["a"]

    def answers(*_args):
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "preadv", answers)
    with pytest.raises(GGUFError, match=words) as caught:
        tensor.raw()
    assert caught.value.tensor == "a" and "x.gguf: " in str(caught.value)


def test_a_file_that_is_written_to_while_it_is_open(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small())
    file = read_gguf(path)
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(GGUFError, match="was written to while it was open"):
        file.tensors["a"].raw()


def test_a_file_that_is_replaced_is_read_to_the_end(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small())
    tensor = read_gguf(path).tensors["a"]
    (tmp_path / "other").write_bytes(b"GGUF")
    os.replace(tmp_path / "other", path)
    assert tensor.dequantize()[2, 3] == 11


def test_open_files_are_closed(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small())
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        read_gguf(path).tensors["a"].raw()
        with pytest.raises(GGUFError):
            read_gguf(_cut(path))
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after <= before + 2


def _cut(path):
    short = path.with_name("short.gguf")
    short.write_bytes(path.read_bytes()[:100])
    return short


@pytest.mark.parametrize("name", ["missing.gguf", ".", "a\0b.gguf", "a" * 300])
def test_paths_that_are_no_files(tmp_path, name):
    with pytest.raises(NotReadableError):
        read_gguf(tmp_path / name)
