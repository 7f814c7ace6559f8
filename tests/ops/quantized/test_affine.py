"""Affine codes of 8 and 4 bits in both published forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.quantized import AffineTensor
from tests import golden

CASES = golden.manifest("sparse_inference").get("quant_affine_a", {"config": {}})["config"]


@pytest.mark.golden("quant_affine_a")
@pytest.mark.parametrize("case", CASES)
def test_golden_codes(case):
    arrays, config = golden.arrays("sparse_inference", "quant_affine_a"), CASES[case]
    tensor = AffineTensor.quantize(arrays[f"{case}_x"], config["bits"], group_size=config["group_size"])
    for mine, name in ((tensor.data, "data"), (tensor.scales, "scales"), (tensor.zero_points, "zero_points")):
        assert np.asarray(mine).tobytes() == arrays[f"{case}_{name}"].tobytes()
    np.testing.assert_array_max_ulp(np.asarray(tensor.dequantize()), arrays[f"{case}_dequant"], 1)
    assert tensor.nbytes == config["memory_size"]


@pytest.mark.golden("quant_affine_a")
def test_golden_document():
    published = golden.document("sparse_inference", "quant_affine_a_c1.serde")
    arrays = golden.arrays("sparse_inference", "quant_affine_a")
    tensor = AffineTensor.from_dict(published)
    assert tensor.to_dict() == published
    np.testing.assert_allclose(tensor.dequantize(), arrays["c1_dequant"], rtol=1e-6, atol=1e-7)


def _numbers(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


# count, bits, group, largest error: the published tests' tolerances
@pytest.mark.parametrize(
    ("count", "bits", "group", "most"),
    [(1024, 8, None, 0.01), (513, 8, None, 0.01), (513, 4, 32, 0.1), (256, 4, 16, 0.1), (256, 4, 128, 0.1)],
)
def test_errors_of_uniform_numbers(count, bits, group, most):
    values = _numbers(count)
    found = AffineTensor.quantize(values, bits, group_size=group).dequantize()
    assert np.abs(found - values).max() <= most


def test_a_ramp_of_4_bits():
    values = np.arange(64) * 0.01
    tensor = AffineTensor.quantize(values, 4, group_size=32)
    assert np.abs(tensor.dequantize() - values).max() <= 0.05
    assert AffineTensor.quantize(_numbers(1024), 4, group_size=64).nbytes < 1024


@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 5), (4, 3)])
@pytest.mark.parametrize("value", [0.0, 0.1, -123.456, 1e-30, 3e38])
def test_constants_are_kept_exactly(bits, group, value):
    values = np.full((3, 7), value, np.float32)
    assert (AffineTensor.quantize(values, bits, group_size=group).dequantize() == values).all()


def test_by_tensor_the_formula_is_the_published_one():
    values = np.array([-1.0, -0.3, 0.0, 0.77, 1.55], np.float32)
    tensor = AffineTensor.quantize(values)
    scale = np.float32(2.55 / 255)
    assert tensor.scales == pytest.approx(scale, rel=1e-6)
    assert int(tensor.zero_points) == -28
    assert tensor.data.tolist() == [-128, -58, -28, 49, 127]
    np.testing.assert_allclose(tensor.dequantize(), values, atol=float(scale) / 2 * 1.001)


def test_numbers_far_from_zero_keep_their_spread():
    values = 1000 + _numbers(100)
    assert np.abs(AffineTensor.quantize(values).dequantize() - values).max() <= 0.005
    close = np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    np.testing.assert_allclose(AffineTensor.quantize(close).dequantize(), close, rtol=2e-7)


@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 5), (4, 3)])
def test_rows(bits, group):
    tensor = AffineTensor.quantize(_numbers(5 * 7).reshape(5, 7), bits, group_size=group)
    whole = tensor.dequantize()
    assert (tensor.rows([4, 0]) == whole[jnp.array([4, 0])]).all()
    traced = jax.jit(lambda tensor, indices: tensor.rows(indices))(tensor, jnp.array([[3], [9]]))
    np.testing.assert_allclose(traced[0, 0], whole[3], rtol=1e-6)
    assert jnp.isnan(traced[1, 0]).all()
    with pytest.raises(IndexError, match="row indices 5 to 5 are not all in 0 to 4"):
        tensor.rows([5])
    with pytest.raises(TypeError, match="must be integers"):
        tensor.rows([0.5])


def test_formats_have_the_names_that_quantisation_takes():
    assert [AffineTensor.quantize([1.0, 2.0], bits).format for bits in (8, 4)] == ["int8", "int4"]


def test_it_is_a_pytree():
    tensor = AffineTensor.quantize(_numbers(24).reshape(4, 6), 4, group_size=5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), tensor, tensor)
    both = jax.vmap(lambda tensor: tensor.dequantize())(stacked)
    assert both.shape == (2, 4, 6)
    np.testing.assert_allclose(both[1], tensor.dequantize(), rtol=1e-6, atol=1e-7)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="8 or 4 bits, not 3"):
        AffineTensor.quantize([1.0], 3)
    with pytest.raises(ValueError, match="group_size must be at least 1"):
        AffineTensor.quantize([1.0], 4, group_size=0)
    with pytest.raises(ValueError, match="1 of 2 numbers are NaN or infinite"):
        AffineTensor.quantize([1.0, np.nan])
    with pytest.raises(ValueError, match="overflows float32"):
        AffineTensor.quantize([3e38, -3e38], 4)
    with pytest.raises(ValueError, match="no number"):
        AffineTensor.quantize(np.zeros((0, 3)))
    document = AffineTensor.quantize(_numbers(10), 4).to_dict()
    with pytest.raises(
        ValueError, match=r"scales of affine weights \(10,\) must have shape \(1,\), not \(2,\)"
    ):
        AffineTensor.from_dict({**document, "scales": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"no affine weights have 3 bits, groups of 64 and shape \(10,\)"):
        AffineTensor.from_dict({**document, "bits": 3, "group_size": 64})
    with pytest.raises(ValueError, match="lack bits"):
        AffineTensor.from_dict({name: value for name, value in document.items() if name != "bits"})
    with pytest.raises(ValueError, match="must be bytes"):
        AffineTensor.from_dict({**document, "data": [300] * 5})
    with pytest.raises(ValueError, match="only affine weights by group"):
        AffineTensor.quantize([1.0]).to_dict()
