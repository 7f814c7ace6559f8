"""What is known of a file that a checkpoint came from."""

from __future__ import annotations

import hashlib
import os

import pytest

from sparsejax.checkpoint.source_file import describe_source, sha256_of


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"weights")
    return path


def test_the_hash_is_that_of_the_file_while_it_is_the_same(source):
    assert sha256_of(describe_source(source)) == hashlib.sha256(b"weights").hexdigest()
    assert sha256_of(None) is None


@pytest.mark.parametrize("change", ["other bytes", "another time", "gone"])
def test_a_file_that_is_another_one_now_has_no_hash(source, change):
    found = describe_source(source)
    if change == "gone":
        source.unlink()
    elif change == "other bytes":
        source.write_bytes(b"other weights")
    else:
        os.utime(source, ns=(0, 0))
    assert sha256_of(found) is None
