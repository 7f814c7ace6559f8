"""Shipped files are found in one way: in a named folder, a checkout or a wheel, and only the right ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sparsejax import shipped
from sparsejax.checkpoint.errors import NotReadableError
from tests.command_line import run

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
SMALL, OTHER = "ultra_sparse_sine.pt", "dense_sine.pt"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package outside of any checkout that has the list and one file; an empty working directory."""
    package, elsewhere = tmp_path / "site" / "sparsejax", tmp_path / "elsewhere"
    inside = package / "shipped_checkpoints"
    for folder in (inside, elsewhere):
        folder.mkdir(parents=True)
    for name in ("manifest.json", SMALL, SMALL.replace(".pt", ".expected.npz")):
        shutil.copy(CHECKPOINTS / name, inside)
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    monkeypatch.chdir(elsewhere)
    return inside


def found(**options) -> dict[str, Path | None]:
    return {file.name: file.path for file in shipped.shipped_files(**options)}


def test_a_checkout_has_all_files_of_its_list():
    files = shipped.shipped_files()
    entries = json.loads((CHECKPOINTS / "manifest.json").read_text())["checkpoints"]
    assert [file.name for file in files] == [entry["file"] for entry in entries]
    assert all(file.path == CHECKPOINTS / file.name and file.expected.is_file() for file in files)
    assert shipped.told_missing(files) is None


def test_a_wheel_has_what_it_has_and_says_what_it_lacks(installed):
    files = found()
    assert files.pop(SMALL) == installed / SMALL
    assert set(files.values()) == {None}
    told = shipped.told_missing(shipped.shipped_files())
    assert all(name in told for name in files) and SMALL not in told.split(";")[0].split(", ")
    assert "checkout" in told and "--checkpoints" in told and "\n" not in told


@pytest.mark.parametrize("way", ["argument", "variable", "working directory"])
def test_the_rest_is_found_where_the_user_says(installed, monkeypatch, way):
    if way == "variable":
        monkeypatch.setenv(shipped.VARIABLE, str(CHECKPOINTS))
    if way == "working directory":
        monkeypatch.chdir(CHECKPOINTS.parent)
    files = found(folder=CHECKPOINTS if way == "argument" else None)
    assert all(path is not None for path in files.values())
    assert files[OTHER].resolve() == CHECKPOINTS / OTHER


def test_another_file_of_the_same_name_is_not_taken(installed, tmp_path):
    named = tmp_path / "named"
    named.mkdir()
    shutil.copy(CHECKPOINTS / SMALL, named / OTHER)
    (named / SMALL).write_bytes(b"not it")
    files = found(folder=named)
    assert files[OTHER] is None
    assert files[SMALL] == installed / SMALL


def test_a_folder_that_may_not_be_read_has_nothing(installed, monkeypatch):
    real = shipped._digest

    def refused(path):
        if path.parent == CHECKPOINTS:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(shipped, "_digest", refused)
    files = found(folder=CHECKPOINTS)
    assert files[SMALL] == installed / SMALL and files[OTHER] is None


def test_one_file_or_one_line(installed):
    assert shipped.shipped_file(SMALL) == installed / SMALL
    with pytest.raises(NotReadableError, match="dense_sine.pt: not in this .*; run in a checkout"):
        shipped.shipped_file(OTHER)
    with pytest.raises(NotReadableError, match="no such checkpoint is shipped; there are 'ultra_sparse_sine"):
        shipped.shipped_file("mine.pt")
    with pytest.raises(NotReadableError, match="nowhere: is no folder of checkpoints"):
        found(folder=Path("nowhere"))
    (installed / "manifest.json").unlink()
    with pytest.raises(NotReadableError, match="install sparsejax again"):
        found()


def test_the_command_takes_the_folder_and_refuses_a_wrong_one(tmp_path, capsys, monkeypatch):
    assert run(["demo", "--checkpoints", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "is no folder of checkpoints" in capsys.readouterr().err
    monkeypatch.setenv(shipped.VARIABLE, str(tmp_path / "none"))
    assert run(["demo", "--out", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    arguments = ["demo", "--pt", str(CHECKPOINTS / SMALL), "--checkpoints", str(CHECKPOINTS)]
    assert run(arguments) == 1
    assert "does not go with --pt" in capsys.readouterr().err
