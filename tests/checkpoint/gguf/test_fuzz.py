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
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sj
from sparsejax.checkpoint.errors import CheckpointError, GGUFError
from sparsejax.checkpoint.gguf import StringArray, read_gguf
from tests.checkpoint.gguf.fuzz import corpus, damaged

MEMORY = 64 << 20


def judge(path: Path, content: bytes) -> str:
    """Reads a file with all that it holds; the outcome's name."""
    path.write_bytes(content)
    start = time.perf_counter()
    try:
        outcome = _read(path)
    except GGUFError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1000 and text.startswith(str(path)[:3]), text
        outcome = type(error).__name__
    assert time.perf_counter() - start < 1
    return outcome


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
        assert judge(path, content) == "read"
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


def test_load_and_inspect_of_damaged_files(tmp_path):
    """Beyond the reader: a sound container with wrong metadata or tensors is told by a CheckpointError."""
    path, rng, files = tmp_path / "x.gguf", random.Random(2), corpus()
    for _ in range(150):
        path.write_bytes(damaged(rng.choice(files), rng))
        with pytest.raises(CheckpointError) as caught:
            sj.load(path)
        assert "\n" not in str(caught.value)
        try:
            assert sj.inspect(path).problem is not None
        except CheckpointError as error:
            assert "\n" not in str(error)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = run(Path(folder) / "x.gguf", int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, seed=7)
        print(dict(found), f"{time.perf_counter() - begin:.1f} s")
