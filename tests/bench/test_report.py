"""Rows survive JSON, ratios point the right way, tables say slower where it is slower."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sparsejax.bench.report import (
    Row,
    Target,
    markdown_table,
    read_rows,
    show_rows,
    update_readme,
    write_rows,
)

SETTING = {"device": "cpu (test)", "threads": 1, "versions": {"jax": "1", "numpy": "2"}}
TIME = Row(
    case="features -> y",
    unit="us",
    ours=10.0,
    peers={"numpy": 80.0, "numpy, in blocks": 40.0, "numba": 5.0, "torch": None},
    quality={"max error to float64": {"ours": 1e-7, "numpy": 2e-7}},
    targets=(Target("numpy", at_least=5), Target("numba", at_least=1), Target("torch", at_least=2)),
    variants={"ck.apply": 1234.0},
    notes=("torch is not installed: the columns that need it are empty.",),
    **SETTING,
)
RATE = Row(
    case="load",
    unit="GB/s",
    ours=2.0,
    peers={"np.fromfile": 2.5},
    quality={},
    targets=(Target("np.fromfile", at_least=0.7),),
    **SETTING,
)
LIMIT = Row(
    case="import", unit="s", ours=0.6, peers={}, quality={}, targets=(Target(at_most=0.5),), **SETTING
)
ROWS = [TIME, RATE, LIMIT]


def test_ratios_are_above_one_where_ours_is_better():
    assert TIME.ratio("numpy") == 8
    assert TIME.ratio("numba") == 0.5
    assert TIME.ratio("torch") is None
    assert RATE.ratio("np.fromfile") == pytest.approx(0.8)


def test_a_target_is_judged_by_the_best_peer_of_its_name():
    assert TIME.hardest("numpy") == "numpy, in blocks"
    assert [TIME.met(target) for target in TIME.targets] == [False, False, None]
    assert TIME.met(Target("numpy", at_least=4))
    assert RATE.met(RATE.targets[0])
    assert not LIMIT.met(LIMIT.targets[0])


def test_rows_survive_json(tmp_path):
    write_rows(ROWS, tmp_path / "deep" / "rows.json")
    assert read_rows(tmp_path / "deep" / "rows.json") == ROWS


def test_json_has_the_fields_of_the_design(tmp_path):
    write_rows(ROWS, tmp_path / "rows.json")
    fields = json.loads((tmp_path / "rows.json").read_text())[0]
    assert {"case", "unit", "ours", "peers", "quality", "device", "threads", "versions"} <= fields.keys()
    assert fields["ratios"] == {"numpy": 8, "numpy, in blocks": 4, "numba": 0.5, "torch": None}
    assert fields["met"] == [False, False, None]


def test_markdown_says_slower_and_not_met_in_words():
    first, second, third = markdown_table(ROWS).splitlines()[2:5]
    assert "numpy, in blocks: 40.0 us (ours is 4.0x faster)" in first
    assert "numpy: 80.0 us" not in first, "neither the fastest nor aimed at"
    assert "numba: 5.00 us (ours is 2.0x slower)" in first
    assert "torch: not measured" in first
    assert "at least 5x numpy, in blocks: NOT met (4.00x)" in first
    assert "1.0e-07 (worst peer 2.0e-07)" in first
    assert "ck.apply: 1,234 us" in first
    assert "at least 0.7x np.fromfile: met (0.80x)" in second
    assert "at most 0.50 s: NOT met" in third


def test_markdown_is_one_table_with_its_surroundings_below():
    text = markdown_table(ROWS)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 5 and {line.count(" | ") for line in table if "---" not in line} == {4}
    assert "cpu (test); 1 thread for every contestant; jax 1, numpy 2." in text
    assert text.count("torch is not installed") == 1


def test_terminal_table_shows_every_case(capsys):
    show_rows(ROWS)
    text = capsys.readouterr().out
    assert all(word in text for word in ("features -> y", "load", "import", "NOT met"))


def test_readme_keeps_everything_outside_of_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:x:begin -->\nold\n<!-- bench:x:end -->\nafter\n")
    for _ in range(2):
        update_readme(readme, "x", ROWS)
        text = readme.read_text()
        assert text.startswith("before\n<!-- bench:x:begin -->\n| case")
        assert text.endswith("<!-- bench:x:end -->\nafter\n")
        assert "old" not in text
    with pytest.raises(ValueError, match="bench:y:begin"):
        update_readme(readme, "y", ROWS)


@pytest.mark.parametrize(
    ("unit", "ours", "target", "met", "words"),
    [
        ("proposals/s", 2e5, Target(no_less=1.5e5), True, "at least 150,000 proposals/s: met"),
        ("accuracy", 0.93, Target(no_less=0.94), False, "at least 0.94 accuracy: NOT met"),
        ("MSE", 3e-5, Target(at_most=2e-5), False, "at most 2e-05 MSE: NOT met"),
    ],
)
def test_targets_without_a_peer_point_the_right_way(unit, ours, target, met, words):
    row = Row(
        case="quality",
        unit=unit,
        ours=ours,
        peers={"peer": ours / 2},
        quality={},
        targets=(target,),
        **SETTING,
    )
    assert row.met(target) is met
    assert words in markdown_table([row])
    assert row.ratio("peer") == (0.5 if unit == "MSE" else 2.0)


@pytest.mark.parametrize(
    ("unit", "ours", "peer", "words"),
    [
        ("MSE", 0.0138, 0.0543, "0.0543 MSE (ours is 3.9x lower)"),
        ("MSE", 2.1e-5, 7.5e-6, "7.5e-06 MSE (ours is 2.8x higher)"),
        ("accuracy", 0.953, 0.962, "0.962 accuracy (ours is 0.9 points lower)"),
        ("proposals/s", 8e5, 4e4, "40,000 proposals/s (ours is 20.0x faster)"),
        ("x", 1.02, 51.0, "51.0 x (ours is 50.0x lower)"),
        ("% of the layer", 2.0, 1.0, "1.00 % of the layer (ours is 2.0x higher)"),
        ("% of copy bandwidth", 60.0, 30.0, "30.0 % of copy bandwidth (ours is 2.0x faster)"),
    ],
)
def test_comparisons_speak_of_what_is_measured(unit, ours, peer, words):
    row = Row(case="a | b", unit=unit, ours=ours, peers={"peer": peer}, quality={}, **SETTING)
    table = markdown_table([row])
    assert words in table
    assert "a \\| b" in table, "a bar in a cell would end it"


def test_errors_of_our_own_variants_are_listed():
    row = dataclasses.replace(TIME, quality={"output error": {"with": 0.121, "without": 0.2}})
    assert "output error: with 0.12, without 0.2" in markdown_table([row])


def test_the_worst_peer_is_a_peer_and_no_variant_of_ours():
    errors = {"ours": 3e-3, "ours: ck.apply": 9e-3, "numpy": 9e-5, "numba": 5e-5, "torch": None}
    row = dataclasses.replace(TIME, quality={"error": errors})
    assert "error: 3.0e-03 (worst peer 9.0e-05)" in markdown_table([row])
    row = dataclasses.replace(TIME, quality={"error": {"ours": 1e-4, "float64 oracle": 2e-4}})
    assert "error: 1.0e-04 (float64 oracle 2.0e-04)" in markdown_table([row])
    row = dataclasses.replace(TIME, quality={"error": {"ours": 1e-4, "ours: ck.apply": 9e-3}})
    assert "| error: 1.0e-04 |" in markdown_table([row])
