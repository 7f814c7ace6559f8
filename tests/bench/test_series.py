"""Rows become curves over one size, with every value where it belongs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsejax.bench.report import Row
from sparsejax.bench.series import series_of

SETTING = {"quality": {}, "device": "cpu (test)", "threads": 1, "versions": {}}


def row(case: str, ours: float, unit: str = "ms", **peers) -> Row:
    return Row(case=case, unit=unit, ours=ours, peers=peers, **SETTING)


def spread(case: str, ours: float, **variants: float) -> Row:
    return replace(row(case, ours, "x"), variants=variants)


@pytest.mark.parametrize(
    ("first", "second", "size", "case"),
    [
        ("step, T=1,024", "step, T=4,096", "length T", "step, T=…"),
        ("call, batch 1, rows", "call, batch 4,096, rows", "batch", "call, batch …, rows"),
        ("E, 1 molecule (16 atoms)", "E, 32 molecules (442 atoms)", "molecules", "E, … molecules"),
        ("1 token, sparse", "4,096 tokens, sparse", "tokens", "… tokens, sparse"),
        ("copy over 100 steps", "copy over 200 steps", "steps", "copy over … steps"),
        ("3 blocks of 64 of 2,048", "16 blocks of 64 of 2,048", "blocks", "… blocks of 64 of 2,048"),
        ("205 neurons of 2,048", "1,024 neurons of 2,048", "neurons", "… neurons of 2,048"),
        ("5% active", "10% active", "% active", "…% active"),
        (
            "rise, 5% of the neurons",
            "rise, 50% of the neurons",
            "% of the neurons",
            "rise, …% of the neurons",
        ),
        ("rise, 5% of the blocks", "rise, 50% of the blocks", "% of the blocks", "rise, …% of the blocks"),
        ("less 1, 50%", "less 1, 10%", "% of all", "less 1, …%"),
    ],
)
def test_sizes_are_read_from_the_words_of_cases(first, second, size, case):
    (found,) = series_of([row(first, 1.0), row(second, 2.0)])
    assert (found.size, found.case) == (size, case)
    assert list(found.lines["ours"].values()) == ([1.0, 2.0] if first != "less 1, 50%" else [2.0, 1.0])


def test_times_come_to_one_unit_and_sizes_are_in_order():
    rows = [row("128 tokens, x", 2.0, torch=4.0), row("1 token, x", 500.0, "us", torch=700.0, jax=1.0)]
    (found,) = series_of(rows)
    assert found.unit == "ms"
    assert found.lines["ours"] == {1.0: 0.5, 128.0: 2.0}
    assert list(found.lines["ours"]) == [1.0, 128.0]
    assert found.lines["torch"] == {1.0: pytest.approx(0.7), 128.0: 4.0}
    assert "jax" not in found.lines, "a curve has two points or more"


def test_other_words_or_other_units_are_other_curves():
    rows = [row("a, T=1", 1.0), row("b, T=2", 1.0), row("a, T=2", 1.0, "accuracy"), row("load", 1.0, "GB/s")]
    assert series_of(rows) == []


def test_a_row_can_lie_on_two_curves():
    rows = [
        row("1 token, 3 blocks of 64 of 2,048", 1.0),
        row("1 token, 8 blocks of 64 of 2,048", 2.0),
        row("128 tokens, 8 blocks of 64 of 2,048", 9.0),
    ]
    assert [(one.size, list(one.lines["ours"].values())) for one in series_of(rows)] == [
        ("tokens", [2.0, 9.0]),
        ("blocks", [1.0, 2.0]),
    ]


def test_steps_over_devices_begin_at_one_device_and_keep_processes_apart():
    weak = "step, wide, weak: 4 devices with 4 rows each, over 4 times one device's"
    strong = "step, strong: 16 rows of 128 tokens on 4 devices, over one device"
    rows = [
        spread(weak, 0.9, **{"2 devices": 0.8}),
        spread(strong, 1.1, **{"2 processes of 2 devices": 1.7}),
        spread("TEN: tokens per chip", 523.0),
    ]
    found = series_of(rows)
    assert [(one.case, one.size) for one in found] == [
        ("step, wide", "devices, weak"),
        ("step", "devices, strong"),
        ("step", "devices of 2 processes, strong"),
    ]
    assert [dict(one.lines["ours"]) for one in found] == [
        {1: 1, 2: 0.8, 4: 0.9},
        {1: 1, 4: 1.1},
        {1: 1, 4: 1.7},
    ]
    assert list(found[0].lines["ours"]) == [1, 2, 4]
    assert len({one.unit for one in found}) == 1
