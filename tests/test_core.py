"""What must work on every supported Python with nothing but the core dependencies.

``make test-core`` runs this where the extras of the families are missing: every module is imported that can
be, and every shipped file is read, converted, written back, and compared with its stored outputs.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import sparsejax as sj
from sparsejax.checkpoint.verification import verify
from sparsejax.shipped import shipped_files
from tests.test_house import NEEDS_AT_IMPORT

FILES = {file.name: file for file in shipped_files()}
FAMILIES = {"force_field", "sparse_inference", "sprout", "ten", "ultra_sparse"}


def test_every_module_is_imported_without_extras():
    missing = {}
    for module in pkgutil.walk_packages(sj.__path__, "sparsejax."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            path = module.name.removeprefix("sparsejax.").replace(".", "/") + ".py"
            missing[path] = (error.name or "").split(".")[0]
    assert missing.items() <= NEEDS_AT_IMPORT.items()


def test_every_family_ships_a_file():
    assert {sj.inspect(file.path).kind for file in FILES.values()} == FAMILIES


@pytest.mark.parametrize("name", FILES)
def test_shipped_file_is_converted_and_computes_what_is_stored(name):
    checks = verify(FILES[name].path, FILES[name].expected, family_report=False)
    assert not [check for check in checks if not check.passed]
    assert len(checks) > 1


def test_the_command_runs():
    program = "import sparsejax.cli; sparsejax.cli.main(['--version'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"sparsejax {sj.__version__}"


def test_subpackages_and_families_are_there_when_they_are_first_used():
    program = (
        "import sparsejax as sj\n"
        "assert {'load', 'models', 'ops', '__version__'} <= {*dir(sj)}\n"
        "print(*(part.__name__ for part in (sj.ops, sj.typing, sj.models.ten, sj.models.force_field)))\n"
        "try: sj.models.none\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "sparsejax.ops sparsejax.typing sparsejax.models.ten sparsejax.models.force_field",
        "module 'sparsejax.models' has no attribute 'none'",
    ]
