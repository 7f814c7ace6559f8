"""Bytes mean what ggml says they mean, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from sparsejax.ops.quantized import FORMATS, QuantizedTensor, decode
from tests import golden

BLOCKS = [name for name, layout in FORMATS.items() if not layout.plain]
UPPER = {name: name.upper() for name in FORMATS}


@pytest.fixture(scope="module")
def cases():
    return golden.arrays("sparse_inference", "gguf_blocks_a")


@pytest.mark.golden("gguf_blocks_a")
@pytest.mark.parametrize("name", [*BLOCKS, "f16", "bf16"])
def test_golden_bytes(cases, name):
    raw, wanted = cases[f"{UPPER[name]}_bytes"], cases[f"{UPPER[name]}_dequant"]
    assert decode(raw, name, wanted.size).tobytes() == wanted.tobytes()
    tensor = QuantizedTensor.from_bytes(raw, name, (1, wanted.size))
    np.testing.assert_allclose(tensor.dequantize()[0], wanted, rtol=1e-6, atol=0)
    assert (tensor.to_bytes() == raw).all()


def _half(low, high):
    return np.array([low, high], np.uint8).view(np.float16).astype(np.float64)[0]


def _by_hand(block, name):
    """The numbers of one block in float64, element by element, from the tables of the format alone."""
    b = [int(byte) for byte in block]

    def six_bits(start, j):
        if j < 4:
            return b[start + j] & 63, b[start + 4 + j] & 63
        top = b[start + 4 + j]
        return (top & 15) | (b[start + j - 4] >> 6 << 4), (top >> 4) | (b[start + j] >> 6 << 4)

    values = []
    for i in range(FORMATS[name].block):
        half, run, l = i // 128, i % 128 // 32, i % 32  # noqa: E741
        nibble = lambda start: b[start + i % 16] >> (4 * (i // 16)) & 15  # noqa: B023, E731
        if name == "q4_0":
            value = _half(*b[:2]) * (nibble(2) - 8)
        elif name == "q4_1":
            value = _half(*b[:2]) * nibble(4) + _half(*b[2:4])
        elif name == "q5_0":
            value = _half(*b[:2]) * ((nibble(6) | (b[2 + i // 8] >> i % 8 & 1) << 4) - 16)
        elif name == "q5_1":
            value = _half(*b[:2]) * (nibble(8) | (b[4 + i // 8] >> i % 8 & 1) << 4) + _half(*b[2:4])
        elif name == "q8_0":
            value = _half(*b[:2]) * (b[2 + i] - 256 * (b[2 + i] > 127))
        elif name == "q2_k":
            scale, code = b[i // 16], b[16 + 32 * half + l] >> (2 * run) & 3
            value = _half(*b[80:82]) * (scale & 15) * code - _half(*b[82:84]) * (scale >> 4)
        elif name == "q3_k":
            j = i // 16
            low = b[96 + j] & 15 if j < 8 else b[96 + j - 8] >> 4
            scale = (low | (b[104 + j % 4] >> (2 * (j // 4)) & 3) << 4) - 32
            code = (b[32 + 32 * half + l] >> (2 * run) & 3) - (0 if b[l] >> (i // 32) & 1 else 4)
            value = _half(*b[108:110]) * scale * code
        elif name in ("q4_k", "q5_k"):
            scale, low = six_bits(4, i // 32)
            start = 16 if name == "q4_k" else 48
            code = b[start + 32 * (i // 64) + l] >> (4 * (i // 32 % 2)) & 15
            if name == "q5_k":
                code |= (b[16 + l] >> (i // 32) & 1) << 4
            value = _half(*b[:2]) * scale * code - _half(*b[2:4]) * low
        else:
            low = b[64 * half + 32 * (run % 2) + l] >> (4 * (run // 2)) & 15
            code = (low | (b[128 + 32 * half + l] >> (2 * run) & 3) << 4) - 32
            scale = b[192 + i // 16]
            value = _half(*b[208:210]) * (scale - 256 * (scale > 127)) * code
        values.append(value)
    return np.array(values)


def _blocks(name, count):
    blocks = np.random.default_rng(1).integers(0, 256, (count, FORMATS[name].bytes), np.uint8)
    halves = {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,), "q4_0": (0,), "q5_0": (0,), "q8_0": (0,)}
    for start in halves.get(name, (0, 2)):
        sizes = np.random.default_rng(start).normal(size=count).astype(np.float16)
        blocks[:, start : start + 2] = sizes[:, None].view(np.uint8)
    return blocks


@pytest.mark.parametrize("name", BLOCKS)
def test_random_bytes_mean_what_the_tables_say(name):
    blocks = _blocks(name, 3)
    wanted = np.concatenate([_by_hand(block, name) for block in blocks])
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(decode(blocks, name), wanted, rtol=3e-7, atol=2e-7 * scale)
    for order in ("rows", "columns"):
        tensor = QuantizedTensor.from_bytes(blocks, name, (3, FORMATS[name].block), order=order)
        np.testing.assert_allclose(tensor.dequantize().ravel(), wanted, rtol=3e-7, atol=2e-7 * scale)


def test_plain_numbers():
    values = np.array([1.5, -0.1, 65504, 6e-8], np.float32)
    for name, kind in (("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        narrow = values.astype(kind)
        assert (decode(narrow.view(np.uint8), name, 4) == narrow.astype(np.float32)).all()


def test_another_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match="q4_0 needs 18 bytes for 32 elements, but 17 were given"):
        decode(bytes(17), "q4_0", 32)
    with pytest.raises(ValueError, match="33 elements are not whole q4_0 blocks of 32"):
        decode(bytes(18), "q4_0", 33)
    with pytest.raises(ValueError, match="100 bytes are not whole q4_k blocks of 144 bytes"):
        decode(bytes(100), "q4_k")
