"""Cutting into units and joining them again loses nothing, whatever the format."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.store.units import from_json, to_json, unit_arrays, unit_layout
from sparsejax.ops.quantized import QuantizedTensor, decode
from sparsejax.ops.sparse_ffn import FFNWeights
from tests.models.sparse_inference.stored_layers import drawn, plain_layer, quantized_layer

BF16 = FFNWeights(jnp.asarray(drawn(0, 6, 4), jnp.bfloat16), jnp.asarray(drawn(1, 6, 4), jnp.bfloat16))
MIXED = FFNWeights(
    QuantizedTensor.quantize(drawn(0, 512, 32), "q4_0"),
    QuantizedTensor.from_bytes(
        np.random.default_rng(0).integers(0, 256, 7 * 2 * 210).astype(np.uint8) & 0x3F, "q6_k", (7, 512)
    ),
    b_out=drawn(2, 7),
)
LAYERS = {
    "plain": (plain_layer(), 1),
    "gated with biases": (plain_layer(gated=True, bias=True), 1),
    "bfloat16": (BF16, 1),
    "q8_0": (quantized_layer("q8_0"), 32),
    "q5_1": (quantized_layer("q5_1"), 32),
    "f16 as a file has it": (quantized_layer("f16"), 1),
    "q4_0 and q6_k": (MIXED, 256),
}


def numbers(part):
    if not isinstance(part, QuantizedTensor):
        return np.asarray(part)
    return decode(part.to_bytes(), part.format, part.size).reshape(part.shape)


@pytest.mark.parametrize("name", LAYERS)
def test_all_units_are_the_layer_and_some_are_their_part(name):
    layer, unit = LAYERS[name]
    layout = unit_layout(layer)
    arrays = unit_arrays(layer, layout)
    assert (layout.unit, layout.units * unit) == (unit, layer.w_in.shape[0])
    assert sum(array.nbytes for array in arrays) == layout.units * layout.unit_bytes
    some = np.asarray([0, layout.units - 1])
    neurons = (some[:, None] * unit + np.arange(unit)).ravel()
    whole, part = layout.weights(arrays, layer.b_out), layout.weights([array[some] for array in arrays])
    for field, expected in layer._asdict().items():
        if expected is None:
            continue
        found = getattr(whole, field)
        assert np.array_equal(numbers(found), numbers(expected)), field
        if isinstance(expected, QuantizedTensor):
            assert np.array_equal(found.to_bytes(), expected.to_bytes())
        if field != "b_out":
            turned = field == "w_out" and isinstance(expected, QuantizedTensor)
            wanted = numbers(expected)[:, neurons] if turned else numbers(expected)[neurons]
            assert np.array_equal(numbers(getattr(part, field)), wanted), field


@pytest.mark.parametrize("name", LAYERS)
def test_layouts_pass_through_json(name):
    layout = unit_layout(LAYERS[name][0])
    assert from_json(json.loads(json.dumps(to_json(layout)))) == layout


def test_blocks_of_plain_neurons_can_be_units():
    layer = plain_layer(neurons=12, bias=True)
    layout = unit_layout(layer, 4)
    assert (layout.units, layout.unit_bytes) == (3, 4 * 4 * (8 + 8 + 1))
    assert unit_arrays(layer, layout)[0].shape == (3, 4, 8)


def test_float64_is_what_jax_makes_of_it():
    layer = FFNWeights(np.ones((4, 2)), np.full((4, 2), 0.1))
    layout = unit_layout(layer)
    assert {plane.dtype for plane in layout.planes} == {jnp.asarray(0.1).dtype.name}
    assert unit_arrays(layer, layout)[1].dtype == np.float32
    values = to_json(layout)
    values["fields"][0]["planes"][0]["dtype"] = "float64"
    with pytest.raises(ValueError, match="weights of float64 need jax_enable_x64"):
        from_json(values)


@pytest.mark.parametrize(
    ("layer", "unit", "said"),
    [
        (plain_layer(neurons=12), 5, "12 neurons are no whole number of units of 5"),
        (plain_layer(), 0, "a unit must be a multiple of 1 neurons, not 0"),
        (quantized_layer(), 16, "a unit must be a multiple of 32 neurons, not 16"),
        (plain_layer()._replace(w_gate=drawn(0, 63, 8)), None, "w_gate of shape .63, 8. does not fit 64"),
        (quantized_layer()._replace(w_out=quantized_layer().w_in), None, "w_out of shape .128, 64. does not"),
        (plain_layer()._replace(b_in=drawn(0, 64, 1)), None, "b_in of shape"),
    ],
)
def test_what_cannot_be_cut_is_refused(layer, unit, said):
    with pytest.raises(ValueError, match=said):
        unit_layout(layer, unit)


def damaged(change, layer=None):
    layout = unit_layout(quantized_layer() if layer is None else layer)
    values = json.loads(json.dumps(to_json(layout)))
    change(values)
    return values


@pytest.mark.parametrize(
    "values",
    [
        damaged(lambda v: v["fields"][0]["planes"][0].update(shape=[1, 2]), plain_layer()),
        damaged(lambda v: v["fields"][0]["planes"][0].update(name="codes"), plain_layer()),
        None,
        [],
        {},
        {"neurons": 4, "unit": 1, "fields": 3},
        damaged(lambda v: v.update(unit=3)),
        damaged(lambda v: v.update(neurons=1 << 50)),
        damaged(lambda v: v.update(neurons=1.5)),
        damaged(lambda v: v["fields"].pop(0)),
        damaged(lambda v: v["fields"][0].update(format="q9_9")),
        damaged(lambda v: v["fields"][0].update(width=1 << 39)),
        damaged(lambda v: v["fields"][0].update(width=96)),
        damaged(lambda v: v["fields"][0]["planes"][0].update(shape=[1, 2])),
        damaged(lambda v: v["fields"][0]["planes"][0].update(dtype="object")),
        damaged(lambda v: v["fields"][0]["planes"].pop()),
    ],
    ids=str,
)
def test_what_is_no_layout_is_refused(values):
    with pytest.raises(ValueError, match="no layout of neurons"):
        from_json(values)


def test_layouts_larger_than_their_file_are_refused():
    values = to_json(unit_layout(plain_layer()))
    assert from_json(values, 64 * 64).units == 64
    with pytest.raises(ValueError, match="needs 4096 bytes, there are 4095"):
        from_json(values, 4095)
