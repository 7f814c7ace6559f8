"""What is written reads the same; what cannot be written leaves the old file and nothing else."""

from __future__ import annotations

import errno
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.checkpoint.errors import ExportError, GGUFError
from sparsejax.checkpoint.gguf import StringArray, read_gguf, write_gguf
from sparsejax.checkpoint.gguf.tensor_types import BY_NAME
from sparsejax.ops.quantized import QuantizedTensor
from sparsejax.ops.quantized.formats import FORMATS
from tests import golden
from tests.checkpoint.gguf import forge

FAMILY = "sparse_inference"


def again(file, path):
    write_gguf(path, file.metadata, file.tensors, types=file.types, version=file.version)
    return path.read_bytes()


@pytest.mark.parametrize("alignment", [32, 64])
@pytest.mark.parametrize("version", [2, 3])
def test_a_file_is_written_as_it_was(tmp_path, alignment, version):
    path = tmp_path / "x.gguf"
    path.write_bytes(forge.small(alignment, version))
    file = read_gguf(path)
    assert again(file, tmp_path / "y.gguf") == forge.small(alignment, version)
    assert again(file, path) == forge.small(alignment, version), "in its own place, while it is open"


@pytest.mark.golden("gguf_file_a", "llama_tiny_f32", "llama_tiny_q8_0")
@pytest.mark.parametrize("name", ["tiny_a", "llama_tiny_f32", "llama_tiny_q8_0", "bad_a_version2"])
def test_golden_files_are_written_as_they_were(tmp_path, name):
    path = golden.path(FAMILY, f"{name}.gguf")
    file = read_gguf(path)
    assert again(file, tmp_path / "x.gguf") == path.read_bytes()
    values = {name: tensor.view() for name, tensor in file.tensors.items()}
    write_gguf(tmp_path / "x.gguf", file.metadata, values, types=file.types, version=file.version)
    assert (tmp_path / "x.gguf").read_bytes() == path.read_bytes()


def test_kinds_of_tensors(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "numpy": rng.normal(size=(3, 5)).astype(np.float32),
        "jax": jnp.arange(6, dtype=jnp.bfloat16).reshape(1, 2, 3),
        "half": rng.normal(size=4).astype(np.float16)[::2],
        "turned": np.arange(6.0).reshape(2, 3).T,
        "swapped": np.arange(3, dtype=">i4"),
        "whole": np.array([[-1], [1]], np.int64),
        "scalar": np.float32(2.5),
        "list": [1.5, 2.5],
        "blocks": QuantizedTensor.quantize(rng.normal(size=(2, 64)), "q5_1"),
        "columns": QuantizedTensor.quantize(rng.normal(size=(64, 64)), "q4_0", order="columns"),
        "super": QuantizedTensor.quantize(rng.normal(size=(2, 256)), "q6_k"),
    }
    path = tmp_path / "x.gguf"
    write_gguf(path, {}, tensors)
    file = read_gguf(path)
    assert list(file.tensors) == list(tensors)
    for name, value in tensors.items():
        found = file.tensors[name].view()
        if isinstance(value, QuantizedTensor):
            assert (found.format, found.shape) == (value.format, value.shape)
            assert np.array_equal(found.to_bytes(), value.to_bytes())
        else:
            assert np.array_equal(found, np.asarray(value)) and found.shape == np.shape(value)
    formats = [tensor.format for tensor in file.tensors.values()]
    assert formats == ["f32", "bf16", "f16", "f64", "i32", "i64", "f32", "f64", "q5_1", "q4_0", "q6_k"]
    assert file.tensors["jax"].dtype == ml_dtypes.bfloat16
    assert os.path.getsize(path) % 32 == 0


def test_types_that_values_get(tmp_path):
    values = {
        "u32": 7,
        "i32": -7,
        "u64": 1 << 40,
        "i64": -(1 << 40),
        "f32": 0.1,
        "bool": True,
        "str": "é",
        "u8": np.uint8(3),
        "f64": np.float64(0.1),
        "[i32]": [1, -2],
        "[i64]": (1, 1 << 40),
        "[u64]": [1 << 63],
        "[f32]": [1, 2.5],
        "[str]": ["a", ""],
        "[bool]": np.array([True, False]),
        "[u16]": np.array([1], np.uint16),
    }
    path = tmp_path / "x.gguf"
    write_gguf(path, values | {"words": StringArray.of(["a"])}, {})
    file = read_gguf(path)
    assert {key: kind for key, kind in file.types.items() if key != "words"} == {key: key for key in values}
    assert file.metadata["f32"] == np.float32(0.1) and file.metadata["f64"] == 0.1
    for key, value in values.items():
        if key not in ("f32", "f64"):
            assert np.array_equal(list(file.metadata[key]) if key[0] == "[" else file.metadata[key], value), (
                key
            )
    write_gguf(path, {"n": 3, "e": []}, {}, types={"n": "i8", "e": "[u8]"})
    assert read_gguf(path).types == {"n": "i8", "e": "[u8]"}


BAD = {
    "too large": ({"k": 300}, {"k": "u8"}, "does not fit u8"),
    "too large for any": ({"k": 1 << 64}, {}, "does not fit 64 bits"),
    "overflow": ({"k": 1e300}, {}, "does not fit f32"),
    "float for int": ({"k": 1.5}, {"k": "u32"}, "no u32"),
    "bool for int": ({"k": True}, {"k": "u32"}, "no u32"),
    "int for bool": ({"k": 1}, {"k": "bool"}, "no bool"),
    "unknown type": ({"k": 1}, {"k": "u128"}, "type 'u128'"),
    "none": ({"k": None}, {}, "NoneType"),
    "dict": ({"k": {}}, {}, "dict"),
    "empty": ({"k": []}, {}, "its type must be given"),
    "mixed": ({"k": [1, "a"]}, {}, "mixes int, str"),
    "lists": ({"k": [[1]]}, {}, "mixes|which the format"),
    "matrix": ({"k": np.ones((2, 2))}, {}, "ndarray"),
    "complex": ({"k": np.ones(2, np.complex64)}, {}, "complex64"),
    "text for list": ({"k": "abc"}, {"k": "[str]"}, "no row of values"),
    "number for text": ({"k": 3}, {"k": "str"}, "a text is needed"),
    "surrogate": ({"k": "\ud800"}, {}, "no UTF-8 form"),
    "key": ({3: 1}, {}, "a text is needed"),
    "alignment": ({"general.alignment": 48}, {}, "power of two"),
}


@pytest.mark.parametrize("case", BAD)
def test_values_without_a_form_are_named(tmp_path, case):
    metadata, types, words = BAD[case]
    with pytest.raises(GGUFError, match=words):
        write_gguf(tmp_path / "x.gguf", metadata, {}, types=types)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"w": np.ones(2, np.complex64)}, "complex64"),
        ({"w": np.ones(2, bool)}, "bool"),
        ({"w": np.ones((2, 0))}, r"shape \(2, 0\)"),
        ({"w": np.ones((1,) * 5)}, "4 axes"),
        ({"": np.ones(2)}, "a text is needed"),
    ],
)
def test_tensors_without_a_form_are_named(tmp_path, tensors, words):
    with pytest.raises(GGUFError, match=words):
        write_gguf(tmp_path / "x.gguf", {}, tensors)
    with pytest.raises(GGUFError, match="version 1"):
        write_gguf(tmp_path / "x.gguf", {}, {}, version=1)
    assert not list(tmp_path.iterdir())


def test_every_format_is_one_of_the_file():
    assert FORMATS.keys() <= BY_NAME.keys()


@pytest.mark.parametrize(
    ("kept", "words"),
    [("q8_0", r"has planes that do not fit its shape \(2, 32\)"), ("f16", "has 256 bytes, 128 are needed")],
)
def test_quantised_tensors_in_a_stack_are_refused(tmp_path, kept, words):
    one = QuantizedTensor.quantize(np.ones((2, 32), np.float32), kept)
    stack = jax.tree.map(lambda plane: np.stack([plane, plane]), one)
    with pytest.raises(GGUFError, match=rf"x\.gguf: tensor 'w' {words}"):
        write_gguf(tmp_path / "x.gguf", {}, {"w": stack})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_file(tmp_path, where, monkeypatch):
    path = tmp_path / "x.gguf"
    write_gguf(path, {"n": 1}, {"w": np.ones(8, np.float32)})
    before = path.read_bytes()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr("sparsejax.checkpoint.gguf.writer._write_data", full)
        elif where == "open":
            patch.setattr("sparsejax.checkpoint.native.durable.open", full, raising=False)
        else:
            patch.setattr(os, where, full)
        with pytest.raises(ExportError, match=r"x\.gguf: cannot be written \(No space left on device\)"):
            write_gguf(path, {"n": 2}, {"w": np.zeros(8, np.float32)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("target", ["no/such/folder/x.gguf", "folder", "a" * 300])
def test_places_that_cannot_be_written(tmp_path, target):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match="cannot be written"):
        write_gguf(tmp_path / target, {}, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_source_that_shrinks_leaves_the_old_target(tmp_path):
    source, target = tmp_path / "x.gguf", tmp_path / "y.gguf"
    source.write_bytes(forge.small())
    write_gguf(target, {"n": 1}, {})
    before, file = target.read_bytes(), read_gguf(source)
    os.truncate(source, file.tensors["b"].offset)
    with pytest.raises(GGUFError, match="shrank"):
        again(file, target)
    assert target.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.gguf", "y.gguf"]


values = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(width=32),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=4),
    st.lists(st.floats(width=32), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda key: key != "general.alignment"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


@settings(max_examples=40)
@given(st.dictionaries(keys, values, max_size=5), st.sampled_from([8, 32, 64]))
def test_any_metadata_come_back(folder, metadata, alignment):
    path = folder / "x.gguf"
    write_gguf(path, {**metadata, "general.alignment": alignment}, {"w": np.arange(3, dtype=np.int8)})
    file = read_gguf(path)
    assert file.alignment == alignment and list(file.metadata) == [*metadata, "general.alignment"]
    for key, value in metadata.items():
        found = file.metadata[key]
        found = list(found) if isinstance(value, list) else found
        assert np.array_equal(found, value, equal_nan=not isinstance(value, str) and _has_floats(value)), key
    first = path.read_bytes()
    assert again(file, path) == first


def _has_floats(value):
    return isinstance(value, float) or (isinstance(value, list) and isinstance(value[0], float))
