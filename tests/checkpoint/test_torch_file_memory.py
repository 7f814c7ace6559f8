"""A gigabyte goes in and out without a second copy of it in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIGABYTE = 1 << 30
SETUP = """
import resource, sys
import numpy as np
from sparsejax.checkpoint import torch_file

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""


def measured(program: str, *args) -> list[float]:
    """The numbers that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program, *map(str, args)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return [float(word) for word in done.stdout.split()]


@pytest.fixture(scope="module", params=[1, 32])
def file(request, tmp_path_factory):
    """A gigabyte in one tensor or in 32, and what writing it took beyond the tensors."""
    path = tmp_path_factory.mktemp("memory") / "big.pt"
    program = """
count = int(sys.argv[2])
tensors = {str(i): np.full((1 << 28) // count, i + 0.5, np.float32) for i in range(count)}
before = peak()
torch_file.write(tensors, sys.argv[1])
print(peak() - before)
"""
    (extra,) = measured(program, path, request.param)
    try:
        yield path, extra
    finally:
        path.unlink()


@pytest.mark.slow
def test_writing_makes_no_copy(file):
    path, extra = file
    assert path.stat().st_size > GIGABYTE
    assert extra < 0.05 * GIGABYTE


@pytest.mark.slow
def test_verified_views_take_no_more_than_a_few_pages(file):
    program = """
before = peak()
tree = torch_file.read(sys.argv[1])
print(peak() - before, sum(array.nbytes for array in tree.values()))
print(sum(array.flags.owndata or array.flags.writeable for array in tree.values()))
"""
    extra, nbytes, owned = measured(program, file[0])
    assert nbytes == GIGABYTE
    assert extra < 0.1 * GIGABYTE
    assert owned == 0


@pytest.mark.slow
def test_opening_reads_next_to_nothing(file):
    program = """
before = peak()
opened = torch_file.open_file(sys.argv[1])
print(peak() - before, sum(ref.nbytes for ref in opened.tensors()))
"""
    extra, nbytes = measured(program, file[0])
    assert nbytes == GIGABYTE
    assert extra < 0.02 * GIGABYTE
