"""Bytes go apart into fields and planes and come back as they were."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.ops.quantized import FORMATS
from sparsejax.ops.quantized.blocks import join, split
from sparsejax.ops.quantized.formats import byte_count, format_named
from sparsejax.ops.quantized.planes import Cut, from_planes, to_planes

BLOCKS = [name for name, layout in FORMATS.items() if not layout.plain]


def _random_blocks(name, count):
    return np.random.default_rng(0).integers(0, 256, (count, FORMATS[name].bytes), np.uint8)


def test_sizes_are_those_of_ggml():
    sizes = {name: (layout.type_id, layout.block, layout.bytes) for name, layout in FORMATS.items()}
    assert sizes == {
        "f32": (0, 1, 4),
        "f16": (1, 1, 2),
        "bf16": (30, 1, 2),
        "q4_0": (2, 32, 18),
        "q4_1": (3, 32, 20),
        "q5_0": (6, 32, 22),
        "q5_1": (7, 32, 24),
        "q8_0": (8, 32, 34),
        "q2_k": (10, 256, 84),
        "q3_k": (11, 256, 110),
        "q4_k": (12, 256, 144),
        "q5_k": (13, 256, 176),
        "q6_k": (14, 256, 210),
    }
    assert byte_count(FORMATS["q6_k"], (3, 512)) == 3 * 2 * 210


@pytest.mark.parametrize("name", BLOCKS)
def test_every_bit_of_a_block_is_in_a_field(name):
    blocks = _random_blocks(name, 7)
    assert (join(split(blocks, FORMATS[name]), FORMATS[name]) == blocks).all()


@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("rows", [1, 33])
def test_planes_hold_every_bit(name, rows, order):
    layout = FORMATS[name]
    blocks = _random_blocks(name, rows * 2)
    planes = to_planes(blocks, layout, rows, Cut(order, 32))
    assert all(plane.shape[-1] == 32 for plane in planes.values())
    assert (from_planes(planes, layout, rows, order) == blocks).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_planes_are_hardly_larger_than_the_file(name):
    planes = to_planes(_random_blocks(name, 64), FORMATS[name], 32, Cut("rows", 16))
    assert sum(plane.nbytes for plane in planes.values()) <= 1.04 * 64 * FORMATS[name].bytes


def test_unknown_formats_and_broken_rows_are_named():
    assert format_named("Q4_K").name == "q4_k"
    with pytest.raises(ValueError, match="no format 'iq4_xs'; choose one of"):
        format_named("iq4_xs")
    with pytest.raises(ValueError, match="rows of 48 elements are not whole blocks of 32"):
        byte_count(FORMATS["q4_0"], (2, 48))
    fields = split(np.zeros((1, 144), np.uint8), FORMATS["q4_k"])
    with pytest.raises(ValueError, match="q4_k stores minima; give mins"):
        join(fields._replace(mins=None), FORMATS["q4_k"])
