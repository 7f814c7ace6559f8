"""The pages of ``docs/``: their code runs and prints what they say, their tables are those of the library."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import io
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from sparsejax.bench.report import markdown_table, read_rows
from sparsejax.checkpoint.registry import families

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIAL = DOCS / "add_a_family.md"
RESULTS = ROOT / "sparsejax" / "bench" / "results"
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str
    text: str


def blocks(page):
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page.read_text(), re.M | re.S)
    return [Block(*parts) for parts in found]


def programs(page):
    """Code that is to be run, each with what it should print, or None where the page does not say."""
    following = pairwise([*blocks(page), Block("", "", "")])
    return [
        (block.text, after.text if after.title == "Output" else None)
        for block, after in following
        if block.language == "python" and not block.title
    ]


def same(wanted, got):
    return wanted is None or doctest.OutputChecker().check_output(wanted, got, FLAGS)


def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAMS = [page for page in PAGES if page != TUTORIAL and programs(page)]


def test_the_tutorial_and_most_pages_have_code():
    assert programs(TUTORIAL)
    names = {page.relative_to(DOCS).as_posix() for page in PROGRAMS}
    assert {"index.md", "importing.md", "kernels.md", "security.md"} <= names
    assert {f"families/{kind}.md" for kind in families()} <= names


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for program, wanted in programs(page):
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(program, page.name, "exec"), names)
        assert same(wanted, printed.getvalue()), printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_outputs_stand_below_the_code_that_prints_them(page):
    for before, block in pairwise([Block("", "", ""), *blocks(page)]):
        assert block.title != "Output" or (before.language == "python" and not before.title)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with the tutorial's family in it."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "sparsejax", root / "sparsejax", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(TUTORIAL):
        if block.language == "python" and block.title:
            path = root / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "diff":
            path = root / block.title
            old, new = (line[1:] for line in block.text.splitlines())
            assert old in path.read_text().splitlines()
            path.write_text(path.read_text().replace(old, new))
    return root


def run_in(root, *arguments):
    environment = {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "PATH": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_tutorial_adds_a_family(extended):
    ((program, wanted),) = programs(TUTORIAL)
    done = run_in(extended, "-c", program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(wanted, done.stdout), done.stdout


def test_the_tests_of_the_tutorial_pass(extended):
    done = run_in(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert "5 passed" in done.stdout, done.stdout[-2000:]


def test_the_tutorial_keeps_to_the_rules_of_the_house(extended):
    shutil.copy(ROOT / "tests" / "test_house.py", extended / "tests" / "test_house.py")
    done = run_in(
        extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_house.py", "-k", "linear_model"
    )
    assert re.search(r"\d+ passed", done.stdout) and "failed" not in done.stdout, done.stdout[-2000:]


def test_the_import_guide_lists_every_variant_once():
    sections = re.split(r"^### ", (DOCS / "importing.md").read_text(), flags=re.M)[1:]
    for kind, family in families().items():
        (section,) = [text for text in sections if f"<!-- keys of {kind} -->" in text]
        assert sorted(re.findall(r"^\| `(\w+)`", section, re.M)) == sorted(family.layouts)


def test_the_benchmark_page_shows_every_stored_result():
    text = (DOCS / "benchmarks.md").read_text()
    shown = re.findall(r"^<!-- rows of (\w+) -->$", text, re.M)
    assert sorted(shown) == sorted(path.stem for path in RESULTS.glob("*.json"))
    page = tables().filled(text)
    for name in shown:
        lines = markdown_table(read_rows(RESULTS / f"{name}.json")).partition("\n\n")[0].splitlines()
        assert len(lines) > 2 and all(line in page for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_line_for_a_table_is_understood(page):
    assert "<!--" not in tables().filled(page.read_text())


def test_unknown_tables_are_refused():
    with pytest.raises(FileNotFoundError):
        tables().filled("<!-- rows of nothing -->")


def test_pictures_are_there_and_small():
    pictures = {
        page.parent / link for page in PAGES for link in re.findall(r"!\[.+?\]\((.+?)\)", page.read_text())
    }
    assert len(pictures) >= len(families())
    assert sum(path.stat().st_size for path in pictures) < 600_000
    assert {path.resolve() for path in pictures} == set((DOCS / "pictures").iterdir())


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.name)
def test_every_extra_is_listed(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = page.read_text().partition("| extra | for |")[2].partition("\n\n")[0]
    listed = [
        name for line in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", line.split("|")[1])
    ]
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_every_example_is_named():
    told = "".join(page.read_text() for page in (ROOT / "README.md", *PAGES))
    assert [path.name for path in (ROOT / "examples").glob("*.py") if told.count(path.name) < 2] == []


def directives(page):
    return re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)


def is_package(name):
    try:
        return hasattr(importlib.import_module(name), "__path__")
    except ModuleNotFoundError:  # of a function
        return False


def exports(package, name):
    return name in getattr(importlib.import_module(package), "__all__", ())


def public_functions(package):
    module = importlib.import_module(package)
    named = ((name, getattr(module, name)) for name in getattr(module, "__all__", ()))
    return [(name, value) for name, value in named if inspect.isfunction(value)]


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=lambda page: page.stem)
def test_the_reference_shows_functions_that_a_module_of_their_name_hides(page):
    """In a package, the reader of the sources takes ``fuse`` for the module that the function is in."""
    shown = directives(page)
    for package in filter(is_package, shown):
        for name, function in public_functions(package):
            home = function.__module__
            own = home.endswith(f".{name}") and exports(home.rpartition(".")[0], name)
            if own or importlib.util.find_spec(f"{package}.{name}"):
                assert f"{home}.{name}" in shown, f"::: {home}.{name}"
