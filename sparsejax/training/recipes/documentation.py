"""The text that the shipped language models learn: documentation strings of the standard library."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_LEAST_DOCSTRING = 80  # characters; shorter ones are mostly names


def documentation() -> Iterator[str]:
    """Documentation strings of the standard library, module by module, tests left out."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if {"test", "tests", "idlelib", "site-packages", "dist-packages"} & {*parts}:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # a file kept for an old grammar
            continue
        yield from _docstrings(tree)


def _docstrings(tree: ast.Module) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and len(text) >= _LEAST_DOCSTRING:
            yield text
