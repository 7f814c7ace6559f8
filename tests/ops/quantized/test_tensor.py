"""A quantised tensor goes where arrays go, and back to its file."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.quantized import FORMATS, QuantizedTensor, decode, encode
from sparsejax.ops.quantized.formats import byte_count

ENCODED = [name for name in FORMATS if name not in ("q2_k", "q3_k", "q5_k")]


def _numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@jax.jit
def _numbers_of(tensor, indices):
    return tensor.dequantize(), tensor.rows(indices)


@pytest.mark.parametrize(
    ("name", "order"),
    [(name, "rows") for name in ENCODED] + [(name, "columns") for name in ("bf16", "q5_1", "q4_k")],
)
def test_it_holds_the_bytes_of_the_file(name, order):
    values = _numbers(37, 256)
    raw = encode(values, name)
    tensor = QuantizedTensor.from_bytes(raw.tobytes(), name, values.shape, order=order)
    assert (tensor.to_bytes() == raw).all()
    assert (QuantizedTensor.quantize(values, name).to_bytes() == raw).all()
    wanted = decode(raw, name, values.size).reshape(values.shape)
    whole, rows = _numbers_of(tensor, jnp.array([[36], [0]]))
    np.testing.assert_allclose(whole, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows, wanted[[[36], [0]]], rtol=1e-6, atol=1e-6)
    assert (tensor.shape, tensor.format, tensor.ndim, tensor.size) == ((37, 256), name, 2, 37 * 256)


@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("name", FORMATS)
def test_its_description_has_the_shapes_of_its_planes(name, order):
    raw = np.zeros(byte_count(FORMATS[name], (37, 512)), np.uint8)
    told = QuantizedTensor.described(name, (37, 512), order=order)
    there = QuantizedTensor.from_bytes(raw, name, (37, 512), order=order)
    assert jax.tree.structure(told) == jax.tree.structure(there)
    for one, other in zip(jax.tree.leaves(told), jax.tree.leaves(there), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("name", ["f16", "q6_k"])
def test_the_order_of_planes_changes_and_nothing_else(name):
    raw = encode(_numbers(37, 256), name)
    tensor = QuantizedTensor.from_bytes(raw, name, (37, 256))
    other = tensor.ordered("columns")
    assert (other.to_bytes() == raw).all() and other.ordered("columns") is other
    straight = QuantizedTensor.from_bytes(raw, name, (37, 256), order="columns")
    for name_of, plane in straight.planes.items():
        assert (other.planes[name_of] == plane).all()


@pytest.mark.parametrize("shape", [(64,), (1, 32), (2, 3, 64), (33, 32)])
def test_shapes(shape):
    values = _numbers(*shape)
    tensor = QuantizedTensor.quantize(values, "q8_0")
    assert tensor.dequantize().shape == shape
    np.testing.assert_allclose(tensor.dequantize(), values, atol=0.02)
    assert tensor.nbytes == sum(plane.nbytes for plane in tensor.planes.values())


def test_wider_tiles_hold_the_same():
    values = _numbers(200, 64)
    raw = encode(values, "q4_0")
    tensor = QuantizedTensor.from_bytes(raw, "q4_0", values.shape, lanes=128)
    assert tensor.lanes == 128 and tensor.planes["low"].shape == (2, 2, 16, 128)
    assert (tensor.to_bytes() == raw).all()
    assert (tensor.rows([199, 5]) == tensor.dequantize()[jnp.array([199, 5])]).all()


def test_rows_under_jit_compute_only_those_asked_for():
    tensor = QuantizedTensor.quantize(_numbers(640, 64), "q4_0")
    take = jax.jit(lambda tensor, indices: tensor.rows(indices))
    indices = jnp.array([3, 639, 640, -1])
    taken = take(tensor, indices)
    assert (taken[:2] == tensor.dequantize()[indices[:2]]).all()
    assert jnp.isnan(taken[2:]).all()
    largest = max(
        variable.aval.size
        for equation in jax.make_jaxpr(take)(tensor, indices).eqns[0].params["jaxpr"].eqns
        for variable in equation.outvars
    )
    assert largest <= 4 * 64
    with pytest.raises(IndexError, match="row indices 640 to 640 are not all in 0 to 639"):
        tensor.rows([640])
    with pytest.raises(TypeError, match="must be integers"):
        tensor.rows([1.5])
    with pytest.raises(TypeError, match="row indices must be integers, not float32"):
        jax.eval_shape(tensor.rows, jnp.ones(2))


def test_jit_and_vmap():
    tensors = [QuantizedTensor.quantize(_numbers(40, 256) * scale, "q4_k") for scale in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tensors)
    both = jax.jit(jax.vmap(lambda tensor: tensor.dequantize(jnp.bfloat16)))(stacked)
    assert both.shape == (2, 40, 256) and both.dtype == jnp.bfloat16
    wanted = jnp.stack([tensor.dequantize() for tensor in tensors])
    np.testing.assert_allclose(both.astype(jnp.float32), wanted, rtol=0.01, atol=1e-6)


def test_orbax_restores_it(tmp_path):
    import orbax.checkpoint as ocp

    params = {"up": QuantizedTensor.quantize(_numbers(40, 256), "q6_k"), "norm": jnp.ones(3)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "here", params)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "here", jax.eval_shape(lambda: params))
    assert isinstance(restored["up"], QuantizedTensor)
    assert (restored["up"].to_bytes() == params["up"].to_bytes()).all()


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from sparsejax.ops.quantized import QuantizedTensor, quantized_matmul
mesh = Mesh(np.array(jax.devices()), "x")
rng = np.random.default_rng(0)
weights = QuantizedTensor.quantize(rng.normal(size=(256, 256)), "q4_k")
inputs = rng.normal(size=(1, 256)).astype(np.float32)
wanted = inputs @ np.asarray(weights.dequantize()).T
shared = jax.device_put(weights, NamedSharding(mesh, P("x")))
found = jax.jit(quantized_matmul)(inputs, shared)
assert shared.planes["low"].sharding.num_devices == 2
assert np.abs(found - wanted).max() < 1e-4
assert (shared.to_bytes() == weights.to_bytes()).all()
"""


def test_sharding_splits_the_rows():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", SHARDED], check=True, env=environment)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"q8_0 of shape \(2, 32\) needs 68 bytes, but 34 were given"):
        QuantizedTensor.from_bytes(bytes(34), "q8_0", (2, 32))
    with pytest.raises(ValueError, match="rows of 48 elements are not whole blocks of 32"):
        QuantizedTensor.quantize(np.zeros((2, 48)), "q8_0")
    with pytest.raises(ValueError, match="no format 'int3'"):
        QuantizedTensor.quantize(np.zeros((2, 48)), "int3")
    with pytest.raises(ValueError, match="int8 and int4 are formats of AffineTensor"):
        QuantizedTensor.quantize(np.zeros((2, 48)), "int8")
    with pytest.raises(ValueError, match="1 of 64 numbers are NaN or infinite"):
        QuantizedTensor.quantize(np.r_[np.nan, np.zeros(63)], "q8_0")
    with pytest.raises(ValueError, match="no order 'diagonal'"):
        QuantizedTensor.from_bytes(bytes(34), "q8_0", (32,), order="diagonal")
    with pytest.raises(ValueError, match=r"shape \(0, 32\) has a size below 1"):
        QuantizedTensor.from_bytes(b"", "q8_0", (0, 32))
    with pytest.raises(ValueError, match="only matrices have columns"):
        QuantizedTensor.from_bytes(bytes(8), "f32", (2,), order="columns")
