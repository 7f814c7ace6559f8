"""The text of the shipped language models."""

from __future__ import annotations

import sysconfig
from itertools import islice

from sparsejax.training.recipes.documentation import documentation


def test_the_text_is_documentation():
    first = list(islice(documentation(), 3))
    assert all(len(text) >= 80 for text in first)
    assert len({*first}) == 3


def test_tests_and_files_for_an_old_grammar_are_left_out(tmp_path, monkeypatch):
    text = f'"""{"What a module is about. " * 5}"""\n'
    for name in ("a.py", "lib2to3/tests/data.py", "test/test_a.py", "site-packages/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "old.py").write_text(f"{text}print 'of Python 2'\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert [found.strip() for found in documentation()] == [("What a module is about. " * 5).strip()]
