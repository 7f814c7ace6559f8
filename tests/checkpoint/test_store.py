"""The checkpoint directory: what comes back, what is refused, and how it is told."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import zlib
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint import store
from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    MissingKeyError,
    NewerFormatError,
    NotReadableError,
    ShapeError,
    TruncatedFileError,
    UnexpectedKeyError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.native import durable, orbax_arrays
from sparsejax.checkpoint.torch_format.torch_types import TorchDevice, TorchDtype, TorchSize
from sparsejax.version import __version__

HEADER = {"kind": "toy", "variant": None, "config": {"layers": [3, 4], "rate": 0.1}, "source_sha256": "ab12"}


def toy():
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
    return {"layers_0": {"kernel": kernel, "bias": np.ones(4, np.float32)}, "scale": np.float32(2.5)}


def template_of(params):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def load(directory, params):
    return store.read_arrays(store.read_header(directory), template_of(params))


def assert_same(loaded, params):
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for found, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert isinstance(found, jax.Array)
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()


def contents(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


@pytest.fixture
def saved(tmp_path):
    directory = tmp_path / "model"
    store.write_directory(directory, HEADER, toy(), {"epoch": 3, "m": np.arange(3)})
    return directory


# Round trips


def test_header_parameters_and_metadata_come_back(saved):
    header = store.read_header(saved)
    assert header.fields == HEADER
    assert_same(load(saved, toy()), toy())
    metadata = store.read_metadata(header)
    assert metadata["epoch"] == 3
    np.testing.assert_array_equal(metadata["m"], np.arange(3))
    assert metadata["m"].dtype == np.int64


def test_directory_holds_one_json_and_one_payload(saved):
    document = json.loads((saved / "sparsejax.json").read_text())
    assert document["format_version"] == store.FORMAT_VERSION == 1
    assert document["kind"] == "toy"
    assert document["parameters"]["layers_0/kernel"] == "float32[3,4]"
    assert {path.name for path in saved.iterdir()} == {"sparsejax.json", document["payload"]}


def test_no_file_tells_where_the_directory_lay_when_it_was_saved(saved):
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert files and not [path for path in files if str(saved).encode() in path.read_bytes()]


def test_shapes_are_known_without_reading_arrays(saved, monkeypatch):
    monkeypatch.setattr(orbax_arrays, "restore", None)
    assert store.array_shapes(store.read_header(saved)) == template_of(toy())


def test_orbax_alone_can_read_the_parameters(saved):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), toy())
        folder = store.read_header(saved).payload / "params"
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=arguments))
    np.testing.assert_array_equal(tree["layers_0"]["kernel"], toy()["layers_0"]["kernel"])


DTYPES = [
    *("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "complex64"),
    *("int8", "int16", "int32", "uint8", "uint16", "uint32", "bool", "int4", "float4_e2m1fn"),
]


@pytest.mark.parametrize("library", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_every_dtype_and_odd_shape_comes_back_exactly(tmp_path, library):
    values = np.array([0, 1, 3, 5, 7, 2], np.float32)
    params = {name: {"a": library(values.astype(np.dtype(name)).reshape(2, 3))} for name in DTYPES}
    special = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    params |= {"special": library(special), "scalar": library(np.float32(3)), "nothing": {}}
    params |= {"none": library(np.zeros((0, 3), np.int8)), "deep": {"empty": {"er": {}}}}
    store.write_directory(tmp_path / "model", {}, params)
    assert_same(load(tmp_path / "model", params), params)


def test_64_bit_dtypes_with_x64_on(tmp_path):
    params = {"f": np.arange(5) / 3, "c": np.arange(5) * (1 / 3 + 1j / 7)}
    params |= {name: np.array([2**62 + 1], name) for name in ("int64", "uint64")}
    store.write_directory(tmp_path / "model", {}, params)
    with jax.enable_x64(True):
        assert_same(load(tmp_path / "model", params), params)
    with pytest.raises(ShapeError, match=r"'c' is complex128\[5\]: switch jax_enable_x64 on"):
        load(tmp_path / "model", params)


def test_byte_swapped_and_strided_arrays_are_stored_by_value(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    params = {"big": values.astype(">f4"), "view": values[::2, ::-1], "fortran": np.asfortranarray(values)}
    store.write_directory(tmp_path / "model", {}, params)
    plain = {"big": values, "view": values[::2, ::-1].copy(), "fortran": values.copy()}
    assert_same(load(tmp_path / "model", plain), plain)


def test_no_parameters_at_all(tmp_path):
    store.write_directory(tmp_path / "model", HEADER, {})
    assert load(tmp_path / "model", {}) == {}
    assert load(tmp_path / "model", {"a": {}}) == {"a": {}}


def test_odd_names_come_back(tmp_path):
    params = {
        name: {name: np.full(2, i, np.int32)} for i, name in enumerate(["a.b", "..", " é", "0", "%2E", "~"])
    }
    store.write_directory(tmp_path / "model", {}, params)
    assert_same(load(tmp_path / "model", params), params)


def test_metadata_of_a_torch_file_comes_back_in_type_and_bit(tmp_path):
    metadata = OrderedDict(
        optimizer={"state": {0: {"step": 7, "exp_avg": np.ones((2, 3), np.float64)}}, "lr": [1e-3, math.inf]},
        size=TorchSize((2, 3)),
        device=TorchDevice("cuda:0"),
        dtype=TorchDtype("torch.bfloat16"),
        empty=np.zeros((0, 2), np.int16),
        scalar=np.float64(0.1),
        seen={1, "two", (3,)},
        raw=b"\x00\xff",
        z=1 - 2j,
    )
    store.write_directory(tmp_path / "model", {}, {}, metadata)
    found = store.read_metadata(store.read_header(tmp_path / "model"))
    assert type(found) is OrderedDict and list(found) == list(metadata)
    assert [type(found[key]) for key in found] == [type(metadata[key]) for key in metadata]
    average = found["optimizer"]["state"][0].pop("exp_avg")
    assert average.dtype == np.float64 and average.tobytes() == np.ones((2, 3)).tobytes()
    assert found.pop("empty").shape == (0, 2)
    del metadata["optimizer"]["state"][0]["exp_avg"], metadata["empty"]
    assert found == metadata


def test_metadata_defaults_to_none(tmp_path):
    store.write_directory(tmp_path / "model", {}, {})
    assert store.read_metadata(store.read_header(tmp_path / "model")) is None


def test_default_device_and_an_explicit_one(saved):
    device = jax.devices()[0]
    header, template = store.read_header(saved), template_of(toy())
    expected = jax.sharding.SingleDeviceSharding(device)
    for sharding in (None, device, expected):
        params = store.read_arrays(header, template, sharding)
        assert all(leaf.sharding == expected for leaf in jax.tree.leaves(params))


def test_saving_again_replaces_everything_and_keeps_files_of_others(saved):
    (saved / "README.md").write_text("mine")
    before = set(os.listdir(saved))
    store.write_directory(saved, {"kind": "other"}, {"w": np.zeros(2, np.int8)})
    header = store.read_header(saved)
    assert header.fields["kind"] == "other" and "variant" not in header.fields
    assert store.read_metadata(header) is None
    assert set(os.listdir(saved)) & before == {"README.md", "sparsejax.json"}
    assert len(os.listdir(saved)) == 3


def test_parents_are_made_and_relative_paths_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write_directory("a/b/model", {}, toy())
    header = store.read_header("a/b/model")
    monkeypatch.chdir("/")
    assert_same(store.read_arrays(header, template_of(toy())), toy())


# Refusals


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


def refuse_to_save(directory, message, *, header=(), params=None, metadata=None, kind=CheckpointError):
    before = contents(directory) if directory.is_dir() else None
    with pytest.raises(kind, match=message) as error:
        store.write_directory(directory, dict(header), toy() if params is None else params, metadata)
    assert directory.name in one_line(error)
    assert (contents(directory) if directory.is_dir() else None) == before


BAD_PARAMS = {
    "not an array": ({"a": {"b": 1.5}}, "parameter 'a/b' is a float, not an array"),
    "objects": ({"a": np.array([None])}, "parameter 'a' has the dtype object"),
    "unknown dtype": ({"a": np.zeros(2, "uint4")}, "parameter 'a' has the dtype uint4"),
    "text": ({"a": np.array(["x"])}, "parameter 'a' has the dtype <U1"),
    "name of a number": ({"a": {3: np.zeros(2)}}, "parameter name 3 at a must be a string"),
    "name with slash": ({"a/b": np.zeros(2)}, "parameter name 'a/b' at the top"),
    "no name": ({"": np.zeros(2)}, "parameter name '' at the top"),
    "dots": ({"a.b": np.zeros(2), "a": {"b": np.zeros(3)}}, "'a.b', 'a/b' differ only in dots"),
}


@pytest.mark.parametrize(("params", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_parameters_that_cannot_be_stored(saved, tmp_path, params, message):
    refuse_to_save(saved, message, params=params)
    refuse_to_save(tmp_path / "new", message, params=params)
    assert not (tmp_path / "new").exists()


def test_random_keys_are_refused_by_name(tmp_path):
    refuse_to_save(
        tmp_path / "new",
        r"parameter 'rng' has the dtype key<fry>",
        params={"rng": jax.random.key(0)},
        kind=UnsupportedTensorError,
    )


def test_headers_and_metadata_that_cannot_be_encoded(saved):
    refuse_to_save(saved, "not plain JSON: .*set", header={"config": {1}})
    refuse_to_save(saved, "not plain JSON: Out of range", header={"config": math.nan})
    refuse_to_save(saved, "header names 'payload' are the store's own", header={"payload": "x"})
    refuse_to_save(saved, r"metadata at \['a'\]\[1\]: builtins.object", metadata={"a": [0, object()]})
    assert_same(load(saved, toy()), toy())


def test_other_targets_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("x")
    refuse_to_save(tmp_path / "file", "is a file")
    assert (tmp_path / "file").read_text() == "x"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse_to_save(tmp_path / "link", "is a file")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("x")
    refuse_to_save(tmp_path / "photos", "not empty and not a sparsejax checkpoint")
    (tmp_path / "photos" / "sparsejax.json").write_text("[1]")
    refuse_to_save(tmp_path / "photos", "no format_version", kind=CorruptFileError)
    (tmp_path / "photos" / "sparsejax.json").write_text('{"format_version": 2}')
    refuse_to_save(tmp_path / "photos", "written by format 2", kind=NewerFormatError)


def test_empty_directory_is_a_fine_target(tmp_path):
    store.write_directory(tmp_path, {}, toy())
    assert_same(load(tmp_path, toy()), toy())


def full(*_):
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_an_empty_directory_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "sync", full)
    refuse_to_save(tmp_path, "cannot be written: .*No space left on device")


def test_full_disk_leaves_the_old_checkpoint(saved, monkeypatch):
    for place in ("sync", "write_json", "replace_json", "crc32"):
        with monkeypatch.context() as patch:
            patch.setattr(durable, place, full)
            refuse_to_save(saved, "cannot be written: .*No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        refuse_to_save(saved, "No space left on device")
    assert_same(load(saved, toy()), toy())


def test_two_savers_at_once_are_told(saved):
    with durable.locked(saved):
        refuse_to_save(saved, "another process is saving here")
    store.write_directory(saved, {}, toy())


def test_file_systems_without_locks_are_no_obstacle(saved, monkeypatch):
    import fcntl

    def without(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    store.write_directory(saved, {"kind": "new"}, toy())
    assert store.read_header(saved).fields["kind"] == "new"


def refuse_to_read(directory, message, kind):
    with pytest.raises(kind, match=message) as error:
        store.read_header(directory)
    assert directory.name in one_line(error)


def test_what_is_not_a_checkpoint(tmp_path):
    refuse_to_read(tmp_path / "nowhere", "no such directory", NotReadableError)
    (tmp_path / "file").write_text("x")
    refuse_to_read(tmp_path / "file", "is a file", NotReadableError)
    refuse_to_read(tmp_path, "no sparsejax.json: not a sparsejax checkpoint", NotReadableError)
    (tmp_path / "empty").mkdir()
    refuse_to_read(tmp_path / "empty", "an unfinished save", TruncatedFileError)
    (tmp_path / "empty" / "arrays-0123456789abcdef").mkdir()
    refuse_to_read(tmp_path / "empty", "an unfinished save", TruncatedFileError)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sparsejax.json").mkdir()
    refuse_to_read(tmp_path / "odd", "cannot be read: Is a directory", NotReadableError)


def test_no_permission(saved, monkeypatch):
    def forbidden(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    refuse_to_read(saved, "cannot be read: Permission denied", NotReadableError)


def edit(directory, **changes):
    path = directory / "sparsejax.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "no payload": {"payload": None},
    "payload outside": {"payload": "../model"},
    "other payload": {"payload": "arrays-0123456789abcdef"},
    "files not a table": {"files": [1]},
    "file without checksum": {"files": {"a": "3"}},
    "file outside": {"files": {"../../etc/passwd": "1 00"}},
    "absolute file": {"files": {"/etc/passwd": "1 00"}},
    "shape": {"parameters": {"a": "float32[2,x]"}},
    "dtype": {"parameters": {"a": "float99[2]"}},
    "nesting": {"parameters": {"a": "int8[2]", "a/b": "int8[2]"}},
    "version of text": {"format_version": "1"},
    "version of bool": {"format_version": True},
    "version below": {"format_version": 0},
}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE)
def test_damaged_header(saved, changes):
    edit(saved, **changes)
    refuse_to_read(saved, "model: ", CorruptFileError)


@pytest.mark.parametrize("text", ["", "{", "null", "\0\1", '{"format_version": 1}', "[" * 100_000])
def test_header_of_other_text(saved, text):
    (saved / "sparsejax.json").write_text(text)
    refuse_to_read(saved, "sparsejax.json", CorruptFileError)


def test_newer_format_says_what_to_do(saved):
    edit(saved, format_version=2)
    expected = (
        rf"written by format 2; this is sparsejax {re.escape(__version__)}, "
        "which reads up to 1: upgrade sparsejax"
    )
    refuse_to_read(saved, expected, NewerFormatError)


def test_payload_that_is_gone(saved):
    shutil.rmtree(store.read_header(saved).payload)
    refuse_to_read(saved, "the folder arrays-.* is gone", CorruptFileError)


def leaf(shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


MISMATCHES = {
    "missing": ({"layers_1": {"kernel": leaf((2,))}}, MissingKeyError, "not there: 'layers_1/kernel'"),
    "shape": (
        {"layers_0": {"kernel": leaf((4, 3)), "bias": leaf((4,))}},
        ShapeError,
        "'layers_0/kernel' is float32",
    ),
    "dtype": (
        {"scale": leaf((), np.int32)},
        ShapeError,
        r"'scale' is float32\[\], the model needs int32\[\]",
    ),
    "deeper": ({"scale": {"x": leaf(())}}, MissingKeyError, "'scale/x'"),
    "shallower": ({"layers_0": leaf(())}, MissingKeyError, "'layers_0'"),
}


@pytest.mark.parametrize(("change", "kind", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_template_that_does_not_fit(saved, change, kind, message):
    with pytest.raises(kind, match=message) as error:
        store.read_arrays(store.read_header(saved), template_of(toy()) | change)
    one_line(error)


def test_parameters_beyond_the_template(saved):
    template = template_of(toy())
    del template["layers_0"]["bias"]
    with pytest.raises(UnexpectedKeyError, match="does not have: 'layers_0/bias'") as error:
        store.read_arrays(store.read_header(saved), template)
    one_line(error)


def payload_files(directory):
    return sorted(store.read_header(directory).files)


def read_all(directory):
    header = store.read_header(directory)
    return store.read_arrays(header, template_of(toy())), store.read_metadata(header)


def test_each_payload_file_cut_flipped_grown_or_removed_is_reported(saved, tmp_path):
    assert len(payload_files(saved)) > 10
    for number, name in enumerate(payload_files(saved)):
        for damage in ("cut", "flip", "grow", "remove"):
            copy = tmp_path / f"{number}-{damage}"
            shutil.copytree(saved, copy)
            path = store.read_header(copy).payload / name
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            if damage == "remove":
                path.unlink()
            else:
                whole = path.read_bytes()
                path.write_bytes({"cut": whole[:-1], "flip": bytes(data), "grow": whole + b"\0"}[damage])
            with pytest.raises(TruncatedFileError if damage == "cut" else CorruptFileError) as error:
                read_all(copy)
            assert name in one_line(error)


def test_header_that_disagrees_with_its_arrays_is_one_line(saved):
    edit(saved, parameters={"other": "float32[3,4]"})
    with pytest.raises(CorruptFileError, match="model: cannot be read") as error:
        store.read_arrays(store.read_header(saved), {"other": leaf((3, 4))})
    one_line(error)


def test_damaged_metadata_with_a_right_checksum_is_one_line(saved):
    path = store.read_header(saved).payload / "metadata.json"
    files = json.loads((saved / "sparsejax.json").read_text())["files"]
    for text in ("{", "[]", '{"arrays": 0, "tree": {"what": 1}}', '{"arrays": 9, "tree": null}'):
        path.write_text(text)
        edit(saved, files=files | {"metadata.json": f"{len(text)} {zlib.crc32(text.encode()):08x}"})
        with pytest.raises(CorruptFileError, match="its metadata is damaged") as error:
            store.read_metadata(store.read_header(saved))
        one_line(error)


def test_root_logger_is_as_before(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(logging.root, "handlers", [])
    store.write_directory(tmp_path / "model", {}, toy(), np.ones(3))
    read_all(tmp_path / "model")
    assert logging.root.handlers == []
    assert capfd.readouterr() == ("", "")
