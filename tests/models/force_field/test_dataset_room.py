"""Room on the disk, made sure of before HDF5 needs it."""

from __future__ import annotations

import os

import pytest

from sparsejax.models.force_field import dataset_room
from sparsejax.models.force_field.dataset_room import reserve


@pytest.mark.parametrize("known", [True, False])
def test_room_is_zeros_behind_what_is_there(known, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_room, "_AT_ONCE", 4)
    if not known:  # macOS and Windows
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = tmp_path / "x"
    path.write_bytes(b"here")
    reserve(path, 4, 10)
    assert path.read_bytes() == b"here" + bytes(10)
