"""Quantised parameters in checkpoint directories: the bytes of their format, whatever memory looks like."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from sparsejax.checkpoint import packed
from sparsejax.checkpoint.errors import CorruptFileError, NonFiniteError
from sparsejax.ops.quantized import QuantizedTensor


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    weights = {
        "q": QuantizedTensor.quantize(rng.normal(size=(5, 64)), "q4_1"),
        "k": QuantizedTensor.quantize(rng.normal(size=(3, 256)), "q6_k"),
        "c": QuantizedTensor.quantize(rng.normal(size=(64, 32)), "q8_0", order="columns"),
    }
    return {"layer": weights, "norm": np.ones(3, np.float32)}


def test_round_trip_through_bytes_and_json(params):
    arrays, told = packed.as_bytes(params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(arrays))
    assert arrays["layer"]["q"].shape == (5 * 2 * 20,)
    told = json.loads(json.dumps(told))
    again = packed.from_bytes(arrays, told)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_template_has_bytes_where_the_checkpoint_has(params):
    arrays, told = packed.as_bytes(params)
    needed = packed.bytes_template(jax.eval_shape(lambda: params), told)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), needed) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), arrays
    )
    plain = packed.bytes_template(jax.eval_shape(lambda: params), {})
    assert plain["layer"]["q"].shape == (5, 64) and plain["layer"]["q"].dtype == np.float32
    assert "other" not in packed.bytes_template({"w": needed["norm"]}, {"other": told["layer/q"]})


@pytest.mark.parametrize(
    "change",
    [
        {"format": "q9_9"},
        {"format": 3},
        {"shape": [5, 63]},
        {"shape": "ab"},
        {"shape": [5, 128]},
        {"order": "up"},
    ],
)
def test_damaged_descriptions_are_told(params, change):
    arrays, told = packed.as_bytes(params)
    told["layer/q"] |= change
    with pytest.raises(CorruptFileError, match="'layer/q'"):
        packed.bytes_template(jax.eval_shape(lambda: params), told)
        packed.from_bytes(arrays, told)


def test_scales_that_are_not_finite_are_refused():
    raw = np.zeros(34, np.uint8)
    packed.check_finite(QuantizedTensor.from_bytes(raw, "q8_0", (1, 32)), "w")
    raw[:2] = np.array([np.nan], np.float16).view(np.uint8)
    with pytest.raises(NonFiniteError, match=r"scales of 'w' \(q8_0\)"):
        packed.check_finite(QuantizedTensor.from_bytes(raw, "q8_0", (1, 32)), "w")
