"""JSON checkpoints: what serde wrote comes back, and what it would never write is refused."""

from __future__ import annotations

import errno
import json
import os
import random

import numpy as np
import pytest

from sparsejax.checkpoint.errors import CheckpointError, CorruptFileError, ExportError, TruncatedFileError
from sparsejax.checkpoint.json_file import is_json, read_json, write_json


def array(shape, data, version=1):
    return {"v": version, "dim": shape, "data": data}


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        path = tmp_path / "x.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_json(path)

    return write_and_read


def test_arrays_lists_and_plain_values(read, tmp_path):
    tree = {
        "w": array([2, 3], [1, 2, 3, 4.5, -1e-3, 1e30]),
        "n": 3,
        "name": "é",
        "inner": {"b": array([1], [2])},
    }
    tree |= {"codes": [1, 255], "scales": [0.5, 2], "words": ["a"], "none": None, "empty": []}
    found, lists = read(tree)
    assert lists == ("codes", "scales")
    assert found["w"].dtype == np.float32 and found["w"].shape == (2, 3)
    assert found["w"].tolist() == np.float32([[1, 2, 3], [4.5, -1e-3, 1e30]]).tolist()
    assert found["inner"]["b"].tolist() == [2]
    assert found["codes"].dtype == np.int64 and found["scales"].dtype == np.float32
    assert (found["n"], found["name"], found["words"], found["empty"]) == (3, "é", ["a"], [])
    write_json(found, tmp_path / "y.json", lists)
    again, _ = read_json(tmp_path / "y.json")
    assert json.loads((tmp_path / "y.json").read_text())["codes"] == [1, 255]
    for name in ("w", "codes", "scales"):
        assert again[name].tobytes() == found[name].tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends at line 1"),
        (b'{"w": [1, 2', "ends at line 1"),
        (b'{"w": "abc', "ends at line 1"),
        (b'{"w" 1}', "no JSON: Expecting"),
        (b"[1, 2]", "holds a list"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'{"w": NaN}', "holds NaN"),
        (b'{"w": -Infinity}', "holds -Infinity"),
        (b'{"w": 1, "w": 2}', "'w' occurs twice"),
        (b"[" * 100_000, "ends|no JSON that can be read"),
        (b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON that can be read"),
        (b'{"w": [' + b"9" * 5000 + b"]}", "no JSON that can be read"),
        ({"w": array([2], [1, 2], version=2)}, "version 2"),
        ({"w": array([2], [1, 2], version=True)}, "version True"),
        ({"w": array([3], [1, 2])}, r"shape \(3,\) has 2 numbers"),
        ({"w": array([0, 1 << 60], [])}, "has the shape"),
        ({"w": array([-1, -2], [1, 2])}, "has the shape"),
        ({"w": array([True], [1])}, "has the shape"),
        ({"w": array([], [1])}, "no rows of numbers"),
        ({"w": array(2, [1, 2])}, "no rows of numbers"),
        ({"w": array([2], [1, None])}, "NoneType among its numbers"),
        ({"w": array([2], [1, True])}, "bool among its numbers"),
        ({"w": [1, "a"]}, "'w' holds a str among its numbers"),
        ({"w": [1 << 70, 1]}, "does not fit int64"),
    ],
)
def test_what_is_no_checkpoint_is_told(read, content, words):
    with pytest.raises((CorruptFileError, TruncatedFileError), match=words) as caught:
        read(content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_numbers_too_large_for_float32_are_infinite_until_loading(read):
    assert np.isinf(read({"w": array([1], [1e39])})[0]["w"][0])


def test_names_and_first_bytes_tell(tmp_path):
    for name, content, expected in (("a.json", b"x", True), ("a.pt", b' \n{"', True), ("a.pt", b"PK", False)):
        (tmp_path / name).write_bytes(content)
        assert is_json(tmp_path / name) == expected


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, where, monkeypatch):
    path = tmp_path / "x.json"
    write_json({"n": 1}, path)

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(ExportError, match="No space left"):
            write_json({"n": 2}, path)
    for tree in ({"n": float("nan")}, {"n": np.array([np.inf], np.float32)}, {"n": {1, 2}}):
        with pytest.raises(ExportError, match="cannot be written as JSON"):
            write_json(tree, path)
    assert json.loads(path.read_text()) == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_damaged_files_end_in_a_checkpoint_error_or_are_read(read):
    whole = json.dumps({"w": array([2, 2], [1.5, 2, 3, 4]), "c": [1, 2], "k": {"a": None}}).encode()
    rng, outcomes = random.Random(0), {"read": 0, "refused": 0}
    for _ in range(500):
        at = rng.randrange(len(whole))
        size, piece = (
            rng.choice((0, 1, 1, 4)),
            rng.choice((b"", b"{", b"]", b'"', b"9", b"-", b"e9", b"\\u", b"\xc3")),
        )
        try:
            read(whole[:at] + piece + whole[at + size :])
            outcomes["read"] += 1
        except CheckpointError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
