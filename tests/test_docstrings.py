"""Examples in docstrings run, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(sparsejax.__path__, "sparsejax.")
    if not module.name.startswith("sparsejax.bench.peers")
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Finder(doctest.DocTestFinder):
    """Finds the examples of functions that a check is wrapped around as well."""

    def _from_module(self, module, object):  # noqa: A002 - the name of the method that this one replaces
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(name)
    names = {"np": np, "jnp": jnp, "jax": jax, "sparsejax": sparsejax, **vars(module)}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in Finder().find(module, name, extraglobs=names):
        runner.run(example)
    assert runner.failures == 0


def test_examples_of_checked_functions_are_found():
    sampling = importlib.import_module("sparsejax.ops.sampling")
    found = {example.name.split(".")[-1] for example in Finder().find(sampling, "") if example.examples}
    assert {"sample", "keep_top_k", "keep_top_p"} <= found


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_say_what_they_do(name):
    module = importlib.import_module(name)
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name}.{attribute}"


def test_readme_example_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(program, names)
    assert names["ck"].kind == "ultra_sparse"
    assert float(((names["f"](names["x"]) - np.sin(names["x"])) ** 2).mean()) < 1e-3
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "sine", "sine.pt"]
    assert len(program.strip().splitlines()) <= 13
