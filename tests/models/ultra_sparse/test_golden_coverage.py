"""Every case of the manifest has a test here, or a reason why it waits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import golden
from tests.models.ultra_sparse import (
    test_golden_controllers,
    test_golden_expansion,
    test_golden_trained,
    test_golden_variants,
    test_problems_golden,
)
from tests.models.ultra_sparse.evolve import test_golden_traces

MODULES = (
    test_golden_controllers,
    test_golden_expansion,
    test_golden_trained,
    test_golden_variants,
    test_problems_golden,
    test_golden_traces,
)

LATER = {
    "legacy_proteins_a": "the legacy protein cascade, marked optional",
}


def cases_tested():
    """Names of the test functions by the case that their `golden` mark names."""
    found: dict[str, list[str]] = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if name.startswith("test_"):
                for mark in getattr(value, "pytestmark", ()):
                    for case in mark.args if mark.name == "golden" else ():
                        found.setdefault(case, []).append(f"{module.__name__}.{name}")
    return found


@golden.needs_golden
def test_every_case_of_the_manifest_has_a_test_or_a_reason():
    cases, tested = set(golden.manifest("ultra_sparse")), set(cases_tested())
    assert cases - tested - set(LATER) == set(), "these cases have no test"
    assert tested - cases == set(), "these tests name cases that do not exist"
    assert tested & set(LATER) == set(), "these cases wait and are tested"
    assert set(LATER) <= cases


@golden.needs_golden
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_no_tolerance_is_written_down_twice(module):
    """Bounds come from the manifest; this room's own few numbers are named or explained where they stand."""
    tree = ast.parse(Path(module.__file__).read_text())
    bounds = [
        node.comparators[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.LtE)
        if isinstance(node.comparators[0], ast.Constant) and isinstance(node.comparators[0].value, float)
    ]
    assert [bound for bound in bounds if bound > 1e-6] == []
