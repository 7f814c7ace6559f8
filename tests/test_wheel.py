"""The wheel is small, complete, and runs the demo away from any checkout."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparsejax

ROOT = Path(__file__).resolve().parents[1]
MEGABYTES = 1_000_000
SHIPPED = "sparsejax/shipped_checkpoints/"
IN_WHEEL = (
    "ultra_sparse_sine",
    "dense_sine",
    "ultra_sparse_sine_bare",
    "ultra_sparse_sine_library",
    "ultra_tiny_gfn2",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the back end itself, which needs no network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_is_below_two_megabytes(wheel):
    assert wheel.stat().st_size < 2 * MEGABYTES


def test_wheel_holds_the_package_its_records_and_the_smallest_checkpoints(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sparsejax").rglob("*.py")}
    assert sources <= names
    assert "sparsejax/py.typed" in names
    assert "sparsejax/bench/results/ten.json" in names
    stems = {name.removeprefix(SHIPPED).split(".")[0] for name in names if name.startswith(SHIPPED)}
    assert stems == {"manifest", *IN_WHEEL}
    assert all(name.startswith(("sparsejax/", "sparsejax-")) for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".ipynb", ".pyc"))]


def test_wheel_has_the_one_version_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        fields = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    assert fields["Version"] == sparsejax.__version__
    assert "sparsejax = sparsejax.cli:main" in scripts
    assert f"## {sparsejax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_demo_of_the_wheel_runs_in_an_empty_directory(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("SPARSEJAX_CHECKPOINTS", None)
    program = "import sparsejax, sparsejax.cli; print(sparsejax.__file__); sparsejax.cli.main(['demo'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert all(f"{stem}." in done.stdout for stem in IN_WHEEL)
    (missing,) = [line for line in done.stdout.splitlines() if line.startswith("not in this installation")]
    assert "ten_bytes.pt, sprout_words.pt, llama_reglu.gguf, llama_swiglu.gguf; run in a checkout" in missing
    assert missing.split(";")[0] in (empty / "demo" / "report.html").read_text()
    assert [path.name for path in empty.iterdir()] == ["demo"]
