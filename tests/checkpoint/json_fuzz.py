"""Damages JSON files at random, in their bytes or in the tree that they hold, and judges what reading gives.

Three kinds of JSON are read: checkpoints of the original projects, the header of a sparsejax directory, and
the tree of metadata in it.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sparsejax as sj
from sparsejax.checkpoint.errors import CheckpointError
from sparsejax.checkpoint.native import json_tree
from sparsejax.checkpoint.native.header import HEADER_FILE

SECONDS = 1.0
SOURCE = Path(__file__).resolve().parents[2] / "checkpoints" / "ultra_sparse_sine.pt"


class JsonCases:
    """The whole files, written once, and the judge of damaged ones.

    Args:
      folder: empty; the file that is judged last stays in it.
    """

    def __init__(self, folder: Path):
        self._file, self._directory = folder / "x.json", folder / "model"
        self._files = [json.dumps(document) for document in _checkpoints()]
        sj.save(sj.load(SOURCE), self._directory)
        self._header = (self._directory / HEADER_FILE).read_text()
        tree, self._arrays = json_tree.encode(_metadata())
        self._tree = json.dumps(tree)
        self._load(self._directory)
        for whole in self._files:
            self._file.write_text(whole)
            self._load(self._file)
        self._decode(self._tree.encode())

    def judge(self, rng: random.Random) -> str:
        """Damages one file and reads it; the outcome's name."""
        kind = rng.randrange(4)
        if kind < 2:
            self._file.write_bytes(damaged(rng.choice(self._files), rng))
            return _timed(lambda: self._load(self._file), self._file.name)
        if kind == 2:
            (self._directory / HEADER_FILE).write_bytes(damaged(self._header, rng))
            return _timed(lambda: self._load(self._directory), self._directory.name)
        content = damaged(self._tree, rng)
        return _timed(lambda: self._decode(content), "")  # the file is named by who asked for its tree

    def _load(self, path: Path) -> None:
        sj.inspect(path)
        sj.load(path)

    def _decode(self, content: bytes) -> None:
        try:
            node = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError("no JSON") from error
        json_tree.decode(node, self._arrays)


def _timed(read: Callable[[], None], name: str) -> str:
    start = time.process_time()
    try:
        read()
        outcome = "read"
    except CheckpointError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1000 and name in text, text
        outcome = type(error).__name__
    assert time.process_time() - start < SECONDS
    return outcome


def _array(*shape: int) -> dict[str, Any]:
    return {"v": 1, "dim": list(shape), "data": [0.25 * at for at in range(int(np.prod(shape)))]}


def _checkpoints() -> list[dict[str, Any]]:
    """One file of each published kind."""
    vectors = {"b1": _array(3), "b2": _array(2), "activation": "Gelu"}
    config = {"threshold": None, "top_k": 1, "target_sparsity": None, "adaptive_threshold": False}
    return [
        {"w1": _array(3, 4), "w2": _array(2, 3), **vectors},
        {"w1": _array(3, 4), "w2_t": _array(2, 3), **vectors, "output_dim": 2},
        {"p_matrix": _array(2, 4), "q_matrix": _array(3, 2), "config": config},
        {"data": list(range(32)), "scales": [0.5, 0.25], "zero_points": [-1.5, 0.5], "group_size": 32}
        | {"shape": [4, 16], "bits": 4},
    ]


def _metadata() -> dict[Any, Any]:
    return {
        "lr": 0.1,
        "odd": [float("nan"), 2**70, 1 + 2j, b"raw", {1, 2}],
        "shape": (2, 3),
        "arrays": [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.float32(2)],
        3: {"nested": [None, True, "text"]},
    }


# damage

_VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 63, 1 << 70, -(1 << 63), 0.5, -0.0, 1e308, 1e-320),
    *("", "a", "Relu", "1", "object", "O", "float32[99999999,9999]", "../..", "\x00", "é", "x" * 2000),
    *([], {}, [[]], [1], [None], [1 << 40], {"v": 1}, {"tuple": []}, {"array": ["<f4", [1 << 40], None]}),
    *(
        {"array": ["O", [3], None]},
        {"set": [[]]},
        {"int": "0x" + "f" * 5000},
        {"v": 1, "dim": [1], "data": [1]},
    ),
)
_WORDS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"\xff",
    b'"',
    b"[" * 3000,
    b"{",
    b"\\ud800",
    b",",
    b"null",
)


def damaged(text: str, rng: random.Random) -> bytes:
    """The file with one to three things wrong; half of the time it is JSON still."""
    if rng.random() < 0.3:
        return _bent(text.encode(), rng)
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _bend(tree, rng)
    out = json.dumps(tree).encode()
    return _bent(out, rng) if rng.random() < 0.1 else out


def _bend(tree: Any, rng: random.Random) -> None:
    """Replaces, removes, copies or renames something below the top."""
    places = list(_places(tree))
    if not places:
        return
    owner, key = rng.choice(places)
    other_owner, other_key = rng.choice(places)
    kind = rng.randrange(7)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        owner[key] = copy.deepcopy(other_owner[other_key])
    elif kind == 2 and isinstance(owner, dict):
        owner[rng.choice(("", "a", "v", "array", str(other_key), str(key) + "x"))] = owner.pop(key)
    elif kind == 3 and isinstance(owner, list):
        owner.insert(key, rng.choice((owner[key], *_VALUES)))
    elif kind == 4 and type(owner[key]) in (int, float):
        owner[key] = owner[key] * rng.choice((-1, 2, 1 << 40)) + rng.choice((-1, 0, 1))
    else:
        owner[key] = copy.deepcopy(rng.choice(_VALUES))


def _places(tree: Any) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield tree, key
        yield from _places(value)


def _bent(content: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(content)), rng.choice((1, 2, 8, 40))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + content[at + size :]
    if kind == 3:
        return content[:at] + content[at : at + size] + content[at:]
    return content[:at] + rng.choice(_WORDS) + content[at:]
