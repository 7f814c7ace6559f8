"""A file is replaced in one step, or stays; errors say which file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparsejax.checkpoint.errors import ExportError
from sparsejax.checkpoint.replace_file import replaced
from sparsejax.models.force_field.dataset_errors import DatasetError


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device"), ExportError, r"^x\.bin: cannot be written \(No space"),
        (ValueError("no such name"), ExportError, r"^x\.bin: cannot be written \(no such name\)$"),
        (DatasetError("sample 3 has no energy"), DatasetError, "^sample 3 has no energy$"),
    ],
    ids=["of the system", "of Python", "of a kind of its own"],
)
def test_what_fails_within_leaves_the_old_file(tmp_path, monkeypatch, error, kind, words):
    monkeypatch.chdir(tmp_path)  # messages then hold the file's name and not the test's
    path = Path("x.bin")
    path.write_bytes(b"old")
    with pytest.raises(kind, match=words), replaced(path) as stream:
        stream.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and os.listdir() == ["x.bin"]
