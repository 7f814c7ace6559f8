"""Initializers of ``.onnx`` files: honest ones come back bit for bit, forged ones end in one clear line."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

import sparsejax as sj
from sparsejax.checkpoint import errors, torch_file
from sparsejax.checkpoint.onnx_file import is_onnx, read_initializers
from tests.checkpoint import onnx_forge as forge

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1.5, -2.0], np.float32)
GRAPH_CONSTANTS = (
    forge.tensor("/model/Constant_3", np.array([2, 3])),
    forge.tensor("onnx::MatMul_12", WEIGHT),
    forge.tensor("val_7", np.array([5])),
)


def written(folder, content):
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def read(path):
    return {name: array.view() for name, array in read_initializers(path).items()}


def refused(error, folder, content, *words):
    with pytest.raises(error) as caught:
        read_initializers(written(folder, content))
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_parameters_come_back_and_the_rest_of_the_graph_is_left_alone(tmp_path):
    path = written(
        tmp_path,
        forge.model(*GRAPH_CONSTANTS, forge.tensor("mlp.0.weight", WEIGHT), forge.tensor("mlp.0.bias", BIAS)),
    )
    found = read(path)
    assert list(found) == ["mlp.0.weight", "mlp.0.bias"]
    for name, wanted in (("mlp.0.weight", WEIGHT), ("mlp.0.bias", BIAS)):
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape)
        assert found[name].tobytes() == wanted.tobytes() and not found[name].flags.writeable


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8"])
def test_every_type_and_both_ways_to_write_a_shape(tmp_path, dtype):
    wanted = np.arange(6).reshape(3, 2).astype(forge.BFLOAT16 if dtype == "bfloat16" else dtype)
    for packed in (False, True):
        found = read(written(tmp_path, forge.model(forge.tensor("a.w", wanted, packed_shape=packed))))["a.w"]
        assert found.dtype == wanted.dtype and found.tolist() == wanted.tolist()


def test_scalars_empty_tensors_and_packed_fields(tmp_path):
    tensors = (
        forge.tensor("a.scalar", np.float32(7)),
        forge.tensor("a.empty", np.zeros((0, 4), np.float32)),
        forge.tensor("a.floats", BIAS, values=4),
        forge.tensor("a.doubles", BIAS.astype(np.float64), values=10),
    )
    found = read(written(tmp_path, forge.model(*tensors)))
    assert found["a.scalar"].shape == () and found["a.scalar"] == 7
    assert found["a.empty"].shape == (0, 4)
    assert found["a.floats"].tolist() == found["a.doubles"].tolist() == BIAS.tolist()


def test_files_are_told_by_their_first_bytes(tmp_path):
    whole = forge.model(forge.tensor("a.w", BIAS))
    assert is_onnx(written(tmp_path, whole))
    assert is_onnx(written(tmp_path, forge.number(1, 3) + forge.run(7, b"")))
    for content in (b"", b"\x08", b"\x08\x00\x12", b"\x08\x07\xff", b"PK\x03\x04", b"\x80\x02}q", whole[1:]):
        assert not is_onnx(written(tmp_path, content))


def test_what_is_no_onnx_file_is_told_as_before(tmp_path):
    path = written(tmp_path, b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(errors.NotReadableError, match=r"model\.onnx: not a torch file but a Git LFS pointer"):
        sj.inspect(path)


def test_inspect_names_format_prefix_and_problem(tmp_path):
    state = {"module.net.weight": WEIGHT, "module.net.bias": BIAS}
    report = sj.inspect(written(tmp_path, forge.of_state(state)))
    assert (report.file_format, report.prefix, report.kind) == ("onnx", "module.", None)
    assert [row.key for row in report.tensors] == ["net.weight", "net.bias"]
    assert isinstance(report.problem, errors.UnknownFormatError)
    assert "model.onnx: no known layout" in str(report.problem)  # a long path is cut


def test_no_graph_two_graphs_and_no_parameters(tmp_path):
    header, graph = forge.number(1, 8), forge.run(7, forge.run(2, "g"))
    refused(errors.CorruptFileError, tmp_path, header + forge.run(2, "pytorch"), "has 0")
    refused(errors.CorruptFileError, tmp_path, header + graph + graph, "has 2")
    refused(errors.CorruptFileError, tmp_path, header + forge.number(7, 3), "the graph is no run of bytes")
    refused(errors.UnknownFormatError, tmp_path, forge.model(*GRAPH_CONSTANTS), "no initializer")


def test_values_outside_the_file_are_never_looked_for(tmp_path):
    external = forge.run(13, forge.run(1, "location") + forge.run(2, "/etc/passwd")) + forge.number(14, 1)
    content = forge.model(forge.tensor("a.w", BIAS, extra=external))
    refused(errors.UnsupportedTensorError, tmp_path, content, "'a.w'", "in another file", "one file")
    content = forge.model(forge.tensor("a.w", BIAS, extra=forge.number(14, 1)))
    refused(errors.UnsupportedTensorError, tmp_path, content, "in another file")
    content = forge.model(forge.tensor("a.w", BIAS, extra=forge.run(3, b"")))
    refused(errors.UnsupportedTensorError, tmp_path, content, "in segments")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (forge.tensor("a.w", BIAS, shape=(3,)), ("'a.w'", "8 bytes", "(3,)")),
        (forge.tensor("a.w", BIAS, shape=(-2,)), ("'a.w'", "8 bytes")),
        (forge.tensor("a.w", BIAS, shape=(1 << 62, 4)), ("'a.w'", "8 bytes")),
        (forge.tensor("a.w", BIAS[:0], shape=(0, 1 << 62)), ("'a.w'",)),
        (forge.tensor("a.w", BIAS, shape=(1,) * 70), ("more than 64 dimensions",)),
        (forge.tensor("a.w", BIAS, shape=(1,) * 70, packed_shape=True), ("more than 64 dimensions",)),
        (forge.tensor("a.w", BIAS, extra=forge.run(9, b"12345678")), ("more than once",)),
        (forge.tensor("a.w", BIAS, shape=(2,), values=11), ("0 bytes",)),
        (forge.tensor("a.w", BIAS.astype(np.float64), values=4), ("the field of another type",)),
        (forge.number(1, 2) + forge.number(2, 1) + forge.floats(BIAS) + forge.run(8, "a.w"), ("unpacked",)),
        (forge.run(8, b"\xff\xfe"), ("no UTF-8 text",)),
        (forge.number(8, 3), ("no run of bytes",)),
        (b"\x03", ("no ONNX record",)),
        (b"\x00\x01", ("no ONNX record",)),
        (b"\x10" + b"\xff" * 11, ("more than 64 bits",)),
        (b"\x10" + b"\xff" * 9 + b"\x7f", ("more than 64 bits",)),
        (b"\x10\xff", ("cut off",)),
        (forge.run(9, b"123456")[:4], ("claims 6 bytes, 2 are left",)),
    ],
)
def test_contradicting_records_are_told(tmp_path, tensor, words):
    refused(errors.CorruptFileError, tmp_path, forge.model(tensor), *words)


def test_types_that_are_no_real_numbers_are_told(tmp_path):
    for tensor in (forge.tensor("a.w", BIAS.astype(np.complex64)), forge.tensor("a.w", BIAS, code=8)):
        refused(errors.UnsupportedTensorError, tmp_path, forge.model(tensor), "'a.w'", "element type")


def test_two_of_one_name(tmp_path):
    tensors = (forge.tensor("a.w", BIAS), forge.tensor("a.w", WEIGHT))
    refused(errors.CorruptFileError, tmp_path, forge.model(*tensors), "two initializers", "'a.w'")


def test_every_cut_is_noticed(tmp_path):
    content = forge.model(forge.tensor("mlp.0.weight", WEIGHT), nodes=1)
    operators = len(forge.run(8, forge.number(2, 17)))
    for length in range(3, len(content) - operators):
        path = written(tmp_path, content[:length])
        with pytest.raises((errors.TruncatedFileError, errors.CorruptFileError)):
            read_initializers(path)


def test_damaged_files_end_in_one_line_or_in_arrays(tmp_path):
    content = forge.model(*GRAPH_CONSTANTS, forge.tensor("a.w", WEIGHT), forge.tensor("a.b", BIAS, values=4))
    rng, outcomes, start = random.Random(7), {}, time.process_time()
    for case in range(2000):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(3, len(damaged))
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if case % 10 == 0:
            del damaged[rng.randrange(3, len(damaged)) :]
        path = written(tmp_path, bytes(damaged))
        try:
            arrays = read(path)
        except errors.CheckpointError as error:
            assert "\n" not in str(error) and len(str(error)) < 300
            name = type(error).__name__
        else:
            assert sum(array.nbytes for array in arrays.values()) <= len(damaged)
            name = "read"
        outcomes[name] = outcomes.get(name, 0) + 1
    assert time.process_time() - start < 10
    assert (
        outcomes["read"] > 100 and outcomes["CorruptFileError"] > 100 and outcomes["TruncatedFileError"] > 20
    )


def test_a_torch_file_is_not_taken_for_one(tmp_path):
    torch_file.write({"a.w": BIAS}, tmp_path / "x.pt")
    assert not is_onnx(tmp_path / "x.pt")
