"""The rules of the rooms: who imports whom, and how light `import sparsejax` is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sparsejax"
MODULES = sorted(PACKAGE.rglob("*.py"))
FAMILIES = ("ultra_sparse", "sprout", "ten", "force_field", "sparse_inference")
HEAVY = (
    "torch",
    "ase",
    "matplotlib",
    "numba",
    "sklearn",
    "jax_md",
    "vesin",
    "h5py",
    "tblite",
    "jax2onnx",
    "onnx",
)
NEEDS_AT_IMPORT = {  # their base classes; loaded lazily themselves
    "models/ultra_sparse/estimator.py": "sklearn",
    "models/force_field/calculator.py": "ase",
}
OUTER = tuple(
    f"sparsejax.{room}" for room in ("training", "bench", "cli", "plots", "demo", "console", "shipped")
)


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _forbidden(path: Path) -> tuple[str, ...]:
    room = path.relative_to(PACKAGE).parts
    if room[0] == "ops":
        return ("sparsejax.models", "sparsejax.checkpoint", "flax", *OUTER)
    if room[0] == "checkpoint":
        return ("sparsejax.models", *OUTER)
    if room[0] == "models" and len(room) > 2:
        others = (f"sparsejax.models.{name}" for name in FAMILIES if name != room[1])
        return (*others, *OUTER)
    return ()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_to_its_room(path):
    imported = _imports(path)
    broken = [name for name in imported if name.startswith(_forbidden(path) or ("\0",))]
    assert not broken


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_one_idea_long(path):
    assert len(path.read_text().splitlines()) <= 420
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_inside_functions(path):
    needed = NEEDS_AT_IMPORT.get(path.relative_to(PACKAGE).as_posix())
    imported = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
    assert not imported & {*HEAVY} - {needed}


def test_import_is_light_and_brings_no_heavy_library():
    program = (
        "import sys, time, jax\n"
        "start = time.perf_counter()\n"
        "import sparsejax\n"
        "print(time.perf_counter() - start, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    seconds, *loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert float(seconds) < 0.5
    assert not set(loaded) & {*HEAVY, "flax", "orbax", "tyro", "rich"}


def test_running_a_net_imports_no_training():
    program = (
        "import sys, sparsejax.models.ultra_sparse.convert\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'optax', 'sklearn'}))\n"
        "print('sparsejax.models.ultra_sparse.evolve' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["", "False"]
