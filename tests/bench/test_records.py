"""The README says what is recorded: its tables equal what the recorded rows give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsejax.bench.records import BENCHES, RESULTS, recorded
from sparsejax.bench.report import around_table, markdown_table

README = Path(__file__).resolve().parents[2] / "README.md"
REMEDY = "run `sparsejax bench all --from-results --readme README.md`"


@pytest.mark.parametrize("name", BENCHES)
def test_table_of_the_readme_is_that_of_the_recorded_rows(name):
    before, after = around_table(README, name)
    text = README.read_text(encoding="utf-8")
    assert text[len(before) : len(text) - len(after)] == markdown_table(recorded(name)), REMEDY


def test_every_table_and_every_record_is_one_of_the_benchmarks():
    marks = re.findall(r"<!-- bench:(\w+):begin -->", README.read_text(encoding="utf-8"))
    assert sorted(marks) == sorted(BENCHES)
    assert sorted(path.stem for path in RESULTS.glob("*.json")) == sorted(BENCHES)


@pytest.mark.parametrize("name", BENCHES)
def test_the_best_repetition_is_in_the_unit_of_its_row(name):
    rows = [row for row in recorded(name) if row.best]
    assert [row.case for row in rows if not 0.25 < row.best["ours"] / row.ours < 4] == []


def test_what_is_not_recorded_is_told():
    with pytest.raises(ValueError, match="no rows of tea are recorded; measure them without --from-results"):
        recorded("tea")
