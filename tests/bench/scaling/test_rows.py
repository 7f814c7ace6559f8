"""What a spread step sends, and the arithmetic of many chips."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsejax.bench.scaling.limits import CHIPS, Network, break_even, networks, ring_bytes
from sparsejax.bench.scaling.steps import collective_bytes

PROGRAM = """
  %sum.1 = (f32[128,64]{1,0}, bf16[7]{0}, /*index=2*/pred[]) all-reduce(%a, %b, %c), channel_id=1
  ROOT %all = s32[4]{0} all-gather-start(%d), dimensions={0}
  %add = f32[1000]{0} add(%all-reduce.3, %e)
  %states = c64[2,3]{1,0} all-to-all(%f)
"""


def test_collectives_are_counted_by_what_they_give():
    assert list(collective_bytes(PROGRAM)) == [4 * 128 * 64 + 14 + 1, 16, 48]


def test_a_ring_sends_every_gradient_twice():
    assert ring_bytes(1000, 2) == 4000
    assert ring_bytes(1000, 10**9) == pytest.approx(8000)


def test_language_models_of_all_sizes_need_as_many_tokens():
    small, large = (break_even(Network("", "tokens", size, 6.0 * size)) for size in (10**6, 10**9))
    assert small == pytest.approx(large)
    one = Network("", "tokens", 10**6, 6e6)
    assert break_even(one, CHIPS) > break_even(one, 2)


def test_the_page_has_the_sizes_of_the_networks():
    page = (Path(__file__).resolve().parents[3] / "docs" / "scaling.md").read_text()
    told = re.findall(r'Network\("[^"]+", "([^"]+)", ([\d_]+), ([\d_]+(?: \* [\d_]+)?)\)', page)
    assert len(told) == 4
    for (rows, parameters, product), network in zip(told, networks(), strict=True):
        flops = 1
        for factor in product.split(" * "):
            flops *= int(factor)
        assert (rows, int(parameters)) == (network.rows, network.parameters)
        assert flops == pytest.approx(network.flops, rel=1e-6)
