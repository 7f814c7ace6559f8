"""Examples in docstrings run, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
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
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
NEEDS = {"from ase": ("ase", "vesin", "jax_md"), "UltraSparseRegressor": ("sklearn",)}
SHORTER = {
    "steps=2000": "steps=20",
    '"high_dimensional"': '"high_dimensional", columns=100',
    "random_state=0": "random_state=0, rounds=3",
}


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


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_example_runs(place):
    names: dict = {}
    exec(PROGRAMS[0], names)
    assert names["ck"].kind == "ultra_sparse"
    assert float(((names["f"](names["x"]) - np.sin(names["x"])) ** 2).mean()) < 1e-3
    assert sorted(os.listdir(place)) == ["checkpoints", "sine", "sine.pt"]
    assert len(PROGRAMS[0].strip().splitlines()) <= 13


@pytest.mark.parametrize("number", range(1, len(PROGRAMS)))
@pytest.mark.usefixtures("place")
def test_every_program_of_the_readme_runs_as_it_stands(number):
    program = PROGRAMS[number]
    for library in sorted({library for word in NEEDS if word in program for library in NEEDS[word]}):
        pytest.importorskip(library)
    for long, short in SHORTER.items():
        program = program.replace(long, short)
    exec(program, {"__name__": "__page__"})


def test_what_is_made_shorter_stands_in_the_readme():
    assert all(sum(long in program for program in PROGRAMS) == 1 for long in SHORTER)
