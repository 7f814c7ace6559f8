"""Encoded bytes: those of the ``gguf`` package, ties included; K formats as good as ggml's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from sparsejax.ops.quantized import FORMATS, decode, encode
from sparsejax.ops.quantized.encode import round_half_away
from tests import golden

EXACT = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def _data(kind):
    rng = np.random.default_rng(3)
    if kind == "normal":
        return rng.normal(size=(512, 32)).astype(np.float32)
    if kind == "ties":  # halves of a power of two, so that quotients fall exactly between two codes
        values = rng.integers(-16, 17, size=(512, 32)).astype(np.float32) / 2
        values[::2, 0] = -8 * np.sign(values[::2, 1] + 0.25)
        values[1::2, :2] = [127, -63.5]
        return values * 2.0 ** rng.integers(-20, 9, size=(512, 1)).astype(np.float32)
    if kind == "constant":
        return np.repeat(rng.normal(size=(64, 1)), 32, axis=1).astype(np.float32)
    values = np.zeros((6, 32), np.float32)
    values[1] = -0.0
    values[2, 3] = 1e-36  # of smaller ones 1 / d overflows, and gguf gives what C leaves undefined
    values[3] = 1e-6
    values[4] = np.arange(32) - 16
    values[5] = 3e4
    return values


@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "corners"])
@pytest.mark.parametrize("name", EXACT)
def test_bytes_are_those_of_gguf(name, kind):
    quants = pytest.importorskip("gguf.quants")
    from gguf import GGMLQuantizationType

    values = _data(kind)
    with np.errstate(all="ignore"):
        wanted = quants.quantize(values, GGMLQuantizationType[name.upper()])
    assert (encode(values, name) == wanted.ravel()).all()


@pytest.mark.golden("gguf_blocks_a")
@pytest.mark.parametrize("name", EXACT)
def test_golden_bytes(name):
    cases = golden.arrays("sparse_inference", "gguf_blocks_a")
    assert (encode(cases[f"{name.upper()}_x"], name) == cases[f"{name.upper()}_bytes"]).all()


@pytest.mark.golden("gguf_blocks_a")
@pytest.mark.parametrize("name", ["q4_k", "q6_k"])
def test_k_formats_are_as_good_as_golden(name):
    cases = golden.arrays("sparse_inference", "gguf_blocks_a")
    values = cases[f"{name.upper()}_x"]
    mine = decode(encode(values, name), name, values.size) - values
    theirs = cases[f"{name.upper()}_dequant"] - values
    assert np.sqrt((mine**2).mean()) <= 1.02 * np.sqrt((theirs**2).mean())


# Root mean square error as a share of the numbers' own, of normal data
@pytest.mark.parametrize(
    ("name", "most"), [("q8_0", 0.006), ("q6_k", 0.02), ("q5_1", 0.045), ("q4_k", 0.078), ("q4_0", 0.105)]
)
def test_errors_of_normal_data(name, most):
    values = np.random.default_rng(5).normal(size=(64, 256)).astype(np.float32)
    error = decode(encode(values, name), name).reshape(values.shape) - values
    assert np.sqrt((error**2).mean()) <= most


@pytest.mark.parametrize("name", ["q4_k", "q6_k"])
def test_k_formats_of_uneven_blocks(name):
    values = np.zeros((5, 256), np.float32)
    values[1] = 2.5
    values[2] = -2.5
    values[3, 7] = 1e-30
    values[4, :32] = 100  # the other groups are much smaller
    values[4, 32:] = np.linspace(-1, 1, 224)
    found = decode(encode(values, name), name).reshape(values.shape)
    assert (found[0] == 0).all()
    assert np.abs(found[:4] - values[:4]).max() <= 2.5 * 0.01
    assert np.abs(found[4] - values[4]).max() <= (2.0 if name == "q4_k" else 1.0)


def test_plain_numbers():
    values = np.array([[1.5, -0.1], [65504, 6e-8]], np.float32)
    assert (encode(values, "f32").view(np.float32) == values.ravel()).all()
    assert (encode(values, "f16").view(np.float16) == values.ravel().astype(np.float16)).all()
    wide = encode(values, "bf16").view(ml_dtypes.bfloat16)
    assert (wide == values.ravel().astype(ml_dtypes.bfloat16)).all()
    assert (encode(values.astype(ml_dtypes.bfloat16), "bf16") == encode(values, "bf16")).all()


def test_halves_go_away_from_zero():
    values = np.array([0.5, -0.5, 2.5, -3.5, 0.49999997, 8388609.0], np.float32)
    assert round_half_away(values).tolist() == [1, -1, 3, -4, 0, 8388609]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("q2_k", "q3_k", "q5_k")])
def test_numbers_without_a_form_are_refused(name):
    values = np.zeros(256, np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        values[7] = bad
        with pytest.raises(ValueError, match="1 of 256 numbers are NaN or infinite in float32.*element 7"):
            encode(values, name)
    if name not in ("f32", "bf16"):
        values[7] = 3e38
        with pytest.raises(ValueError, match=f"too large for {name}|does not fit {name}"):
            encode(values, name)


def test_what_cannot_be_encoded_is_named():
    with pytest.raises(ValueError, match="q5_k is only decoded; encode as one of"):
        encode(np.zeros(256), "q5_k")
    with pytest.raises(ValueError, match="33 elements are not whole q8_0 blocks of 32"):
        encode(np.zeros(33), "q8_0")
    with pytest.raises(ValueError, match="only real numbers"):
        encode(np.zeros(32, complex), "q8_0")
