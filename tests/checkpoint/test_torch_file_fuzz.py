"""Damaged files end in a CheckpointError or in the right answer, quickly, quietly and in little memory."""

from __future__ import annotations

import collections
import random
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.checkpoint import torch_file
from sparsejax.checkpoint.errors import CheckpointError, UnsafePickleError
from tests.checkpoint import torch_forge as forge
from tests.checkpoint.torch_fuzz import corpus, damaged, reference, same, watched

MEMORY = 256 << 20  # the stated constant of the interpreter


class Files:
    """The corpus, its content and what it means, read once."""

    def __init__(self, folder):
        self.paths = corpus(folder)
        self.contents = [path.read_bytes() for path in self.paths]
        self.entries = [
            forge.unpack(path) if raw[:2] == b"PK" else None
            for path, raw in zip(self.paths, self.contents, strict=True)
        ]
        self.meanings = [torch_file.read(path) for path in self.paths]
        self.target = folder / "damaged.pt"

    def judge(self, index: int, rng: random.Random) -> str:
        """Damages one file and reads it; the outcome's name."""
        content, may_differ = damaged(self.contents[index], self.entries[index], rng)
        may_differ = may_differ or self.paths[index].name == "unchecked.pt"
        self.target.write_bytes(content)
        start = time.process_time()
        try:
            with watched() as events:
                found = torch_file.read(self.target)
        except CheckpointError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            outcome = type(error).__name__
        else:
            expected = reference(self.target) if may_differ else self.meanings[index]
            assert same(found, expected), self.paths[index]
            outcome = "read"
        assert not events
        assert time.process_time() - start < 2
        return outcome


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("fuzz"))


def test_judge_agrees_on_whole_files(files):
    for path, meaning in zip(files.paths, files.meanings, strict=True):
        assert same(meaning, reference(path)), path


def run(files: Files, cases: int, seed: int) -> collections.Counter:
    rng = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: collections.Counter = collections.Counter()
    for case in range(cases):
        state = rng.getrandbits(64)
        try:
            outcomes[files.judge(rng.randrange(len(files.paths)), random.Random(state))] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {type(error).__name__}: {error}") from error
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert extra < MEMORY
    assert outcomes["CorruptFileError"] > cases / 10
    assert outcomes["read"] > cases / 100
    assert outcomes["UnsafePickleError"] > 0
    return outcomes


def test_a_thousand_damaged_files(files):
    run(files, 1000, seed=1)


@pytest.mark.slow
def test_five_thousand_other_damaged_files_on_every_run(files):
    outcomes = run(files, 5000, seed=random.SystemRandom().getrandbits(32))
    assert sum(outcomes.values()) == 5000


@given(st.data())
def test_hypothesis_finds_no_other_end(files, data):
    """Hypothesis picks the file and the damage, so that a failure shrinks to a small one."""
    index = data.draw(st.integers(0, len(files.paths) - 1))
    files.judge(index, data.draw(st.randoms(use_true_random=False)))


@given(st.binary(max_size=200), st.sampled_from([0, 2, 4]))
def test_arbitrary_pickles(files, body, protocol):
    files.target.write_bytes(forge.zip_bytes(forge.whole(body, protocol), {"0": bytes(96)}))
    with watched() as events:
        try:
            torch_file.read(files.target)
        except CheckpointError:
            pass
    assert not events


def test_the_watch_sees_what_it_must(tmp_path):
    """The audit hook itself works: each of these is noticed."""
    import os
    import subprocess

    for act in (
        lambda: open(tmp_path / "x", "w").close(),
        lambda: os.close(os.open(tmp_path / "y", os.O_CREAT | os.O_WRONLY)),
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=True),
        lambda: eval("1"),
    ):
        with watched() as events:
            act()
        assert events
    with watched() as events, pytest.raises(UnsafePickleError):
        path = tmp_path / "x"
        torch_file.read(_exploit(path))
    assert all("x" in event for event in events)


def _exploit(path):
    path.write_bytes(forge.zip_bytes(forge.whole(forge.call("os", "system", forge.text("true")))))
    return path
