"""One report from rows: every table and picture is in it, and pictures show the numbers."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from sparsejax.bench.records import BENCHES, recorded
from sparsejax.bench.report import Row, Target
from sparsejax.bench.report_page import summary, write_report
from sparsejax.bench.series import series_of
from tests.bench.test_report import LIMIT, RATE, ROWS, SETTING, TIME

pytest.importorskip("matplotlib")

ACCURACY = Row(case="recall", unit="accuracy", ours=0.9, peers={"torch": 0.5}, quality={}, **SETTING)


def test_summary_counts_what_was_met():
    assert summary({"x": ROWS}) == [("x", "3", "1", "3", "1")]


def test_report_has_tables_pictures_device_and_versions(tmp_path):
    rows = [TIME, RATE, LIMIT, dataclasses.replace(TIME, case="a <b> | c")]
    files = write_report(tmp_path / "out", {"one": rows, "two": [LIMIT]}, "From nowhere.")
    assert [path.name for path in files] == ["report.html", "report.md", "one_ratios.png", "one_errors.png"]
    page, text = (path.read_text() for path in files[:2])
    assert "cpu (test); 1 thread for every contestant; jax 1, numpy 2." in page
    assert "a &lt;b&gt; | c" in page and "a <b> \\| c" in text
    assert page.count("data:image/png;base64,") == 2
    assert re.findall(r"!\[[\w ]+\]\(([\w.]+)\)", text) == ["one_ratios.png", "one_errors.png"]
    assert all("NOT met" in one and "From nowhere." in one for one in (page, text))


def test_bars_are_the_ratios_and_marks_the_targets():
    from sparsejax.plots.benchmarks import ratio_bars

    axis = ratio_bars([TIME, RATE, LIMIT, ACCURACY]).axes[0]
    widths = [patch.get_x() + patch.get_width() for patch in axis.patches]
    assert widths == pytest.approx([4.0, 0.5, 0.8]), "numpy in blocks, numba, np.fromfile; no accuracy"
    marks = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2]
    assert marks[:3] == [5, 1, 0.7]
    assert [text.get_text() for text in axis.texts] == [
        " 4x  numpy, in blocks",
        " 0.5x  numba",
        " 0.8x  np.fromfile",
    ]
    assert len({patch.get_facecolor() for patch in axis.patches}) == 2
    assert ratio_bars([LIMIT, ACCURACY]) is None


def test_curves_share_a_panel_where_there_are_no_peers():
    from sparsejax.plots.benchmarks import scaling_curves

    rows = [
        dataclasses.replace(LIMIT, case=f"{name}, T={size}", peers=peers)
        for size in (1, 2)
        for name, peers in (("a", {}), ("b", {}), ("c", {"torch": 3.0}))
    ]
    first, second = scaling_curves(series_of(rows)).axes
    assert len(first.lines) == len(second.lines) == 2
    assert np.allclose(second.lines[1].get_ydata(), 3000)
    assert scaling_curves([]) is None


def test_errors_stand_beside_speeds():
    from sparsejax.plots.benchmarks import error_beside_speed

    axis = error_beside_speed([TIME, RATE, ACCURACY]).axes[0]
    assert axis.collections[0].get_offsets().tolist() == [[8.0, 2.0]]
    no_error = dataclasses.replace(TIME, quality={"kept": {"with": 0.1}, "words": "as good"})
    assert error_beside_speed([no_error]) is None


@pytest.mark.parametrize("name", BENCHES)
def test_what_is_recorded_can_be_drawn(name, tmp_path):
    files = write_report(tmp_path, {name: recorded(name)}, "Recorded.")
    assert all(path.stat().st_size > 1000 for path in files)
    raced = any(row.peers for row in recorded(name))  # what spreading a step costs has no peer, but a curve
    assert (tmp_path / f"{name}_ratios.png" in files) == raced
    assert raced or tmp_path / f"{name}_scaling.png" in files


def test_a_target_of_a_row_without_its_peer_is_no_bar():
    from sparsejax.plots.benchmarks import ratio_bars

    row = dataclasses.replace(TIME, peers={"torch": None}, targets=(Target("torch", at_least=2),))
    assert ratio_bars([row]) is None
