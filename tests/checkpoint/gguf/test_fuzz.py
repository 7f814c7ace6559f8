"""Damaged GGUF files load or raise GGUFError, within a second, quietly and in little memory.

Run as a script it judges 20,000 files, or as many as its argument says: ``python -m
tests.checkpoint.gguf.test_fuzz 20000``.
"""

from __future__ import annotations

import collections
import random
import resource
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.checkpoint.errors import CheckpointError, GGUFError
from sparsejax.checkpoint.gguf import StringArray, read_gguf
from tests.checkpoint.gguf import forge
from tests.checkpoint.gguf.fuzz import corpus, damaged

MEMORY = 64 << 20
_LOADED = 13  # one file of so many is loaded, too


def judge(path: Path, content: bytes, *, loads: bool | None = None) -> str:
    """Reads a file with all that it holds, and loads some, unless told; the outcome's name."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        outcome = _read(path)
    except GGUFError as error:
        _check_line(path, error)
        outcome = type(error).__name__
    assert time.process_time() - start < 1
    if zlib.crc32(content) % _LOADED == 0 if loads is None else loads:
        _load(path)
    return outcome


def _check_line(path: Path, error: CheckpointError) -> None:
    text = str(error)
    assert "\n" not in text and len(text) < 1000 and text.startswith(str(path)[:3]), text


def _load(path: Path) -> None:
    """Beyond the reader: a sound container with wrong metadata or tensors is told by a CheckpointError."""
    start = time.process_time()
    try:
        problem = sj.inspect(path).problem
        assert problem is None or "\n" not in str(problem)
    except CheckpointError as error:
        _check_line(path, error)
    try:
        sj.load(path)
    except CheckpointError as error:
        _check_line(path, error)
    assert time.process_time() - start < 4  # a network is traced


def _read(path: Path) -> str:
    file = read_gguf(path)
    for value in file.metadata.values():
        if isinstance(value, StringArray):
            assert len(list(value)) == len(value)
    for tensor in file.tensors.values():
        raw = tensor.raw()
        assert raw.nbytes == tensor.nbytes
        assert tensor.dequantize().shape == tensor.shape
    return "read"


def run(path: Path, cases: int, seed: int) -> collections.Counter:
    files, rng = corpus(), random.Random(seed)
    for content in files:
        assert judge(path, content, loads=True) == "read"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: collections.Counter = collections.Counter()
    for case in range(cases):
        state = rng.getrandbits(64)
        content = damaged(rng.choice(files), random.Random(state))
        try:
            outcomes[judge(path, content)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {type(error).__name__}: {error}") from error
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert extra < MEMORY
    assert outcomes["GGUFError"] > cases / 10 and outcomes["TruncatedGGUFError"] > cases / 10
    assert outcomes["read"] > cases / 20
    return outcomes


def test_two_thousand_damaged_files(tmp_path):
    run(tmp_path / "x.gguf", 2000, seed=1)


@pytest.mark.slow
def test_twenty_thousand_other_damaged_files_on_every_run(tmp_path):
    outcomes = run(tmp_path / "x.gguf", 20_000, seed=random.SystemRandom().getrandbits(32))
    assert sum(outcomes.values()) == 20_000


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "x.gguf"


@settings(max_examples=50)
@given(st.data())
def test_hypothesis_finds_no_other_end(target, data):
    content = data.draw(st.sampled_from(corpus()))
    judge(target, damaged(content, data.draw(st.randoms(use_true_random=False))))


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_behind_the_magic_number(target, body):
    judge(target, b"GGUF\x03\0\0\0" + body)


def test_networks_of_more_blocks_than_tensors_are_refused_at_once(tmp_path):
    path, told = tmp_path / "x.gguf", forge.entry("llama.block_count", "u32", 1)
    for count in (12, 300_000, (1 << 32) - 1):
        path.write_bytes(forge.llama().replace(told, forge.entry("llama.block_count", "u32", count)))
        start = time.process_time()
        with pytest.raises(
            CheckpointError, match=f"llama.block_count is {count}; the 11 tensors of the file"
        ):
            sj.load(path)
        assert time.process_time() - start < 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = run(Path(folder) / "x.gguf", int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, seed=7)
        print(dict(found), f"{time.perf_counter() - begin:.1f} s")
