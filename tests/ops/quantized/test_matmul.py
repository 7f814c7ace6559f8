"""Products with quantised matrices are those with their numbers, in every backend."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.backends import target_platform
from sparsejax.ops.quantized import FORMATS, AffineTensor, QuantizedTensor, quantized_matmul
from sparsejax.ops.quantized.kept import kept, kept_tiles
from tests.draws import normal
from tests.ops.quantized.plain import plain

FUSED = ("q8_0", "q4_0", "q4_k", "q6_k")
BLOCKS = [name for name, layout in FORMATS.items() if not layout.plain]


def _inputs(*shape):
    return normal(sum(shape), *shape)


def _products(inputs, weights, **options):
    return jax.jit(partial(quantized_matmul, **options))(inputs, weights)


def _wanted(inputs, weights):
    return np.asarray(inputs, np.float64) @ plain(weights).T


def _close(found, wanted, tolerance=1e-6):
    np.testing.assert_allclose(found, wanted, atol=tolerance * (1 + np.abs(wanted).max()), rtol=0)


@pytest.mark.parametrize("name", BLOCKS)
def test_one_token(matrix, name):
    weights, inputs = matrix(name, 72, 512), _inputs(512)  # the last tile is not full
    found = _products(inputs, weights, backend="xla")
    assert found.shape == (72,) and found.dtype == jnp.float32
    _close(found, _wanted(inputs, weights))


@pytest.mark.parametrize(("name", "tokens"), [("q8_0", 5), ("q4_k", 10), ("q6_k", 10)])
def test_some_tokens(matrix, name, tokens):
    weights, inputs = matrix(name, 72, 512), _inputs(tokens // 5, 5, 512)
    found = _products(inputs, weights, backend="xla")
    assert found.shape == (tokens // 5, 5, 72)
    _close(found, _wanted(inputs, weights))


@pytest.mark.parametrize(("name", "tokens"), [("q4_k", 1), ("q6_k", 9), ("bf16", 2)])
def test_columns_lie_together(matrix, name, tokens):
    weights, inputs = matrix(name, 72, 512, order="columns"), _inputs(tokens, 512)
    _close(quantized_matmul(inputs, weights), _wanted(inputs, weights))  # outside of jit, too


def test_more_rows_than_a_part_has(matrix):
    weights, inputs = matrix("q4_0", 600, 64), _inputs(20, 64)
    _close(_products(inputs, weights, backend="xla"), _wanted(inputs, weights))
    assert "f32[600,64]" not in jax.jit(quantized_matmul).lower(inputs, weights).as_text()


@pytest.mark.parametrize("backend", ["pallas_tpu", "pallas_gpu"])
@pytest.mark.parametrize("name", FUSED)
def test_kernels(matrix, name, backend):
    weights, inputs = matrix(name, 72, 512), _inputs(5 if name in ("q4_0", "q6_k") else 1, 512)
    _close(_products(inputs, weights, backend=backend), _wanted(inputs, weights))


@pytest.mark.parametrize("backend", ["reference", "xla", "pallas"])
def test_inputs_have_a_gradient(matrix, backend):
    weights, inputs = matrix("q8_0", 40, 64), _inputs(3, 64)
    factors = _inputs(3, 40)
    weighted = lambda x: (quantized_matmul(x, weights, backend=backend) * factors).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(weighted))(inputs)
    _close(gradient, np.asarray(factors) @ plain(weights))


def test_short_numbers_are_summed_in_float32(matrix):
    weights, inputs = matrix("q4_0", 40, 512), _inputs(1, 512).astype(jnp.bfloat16)
    found = _products(inputs, weights)
    assert found.dtype == jnp.bfloat16
    wanted = _wanted(inputs.astype(jnp.float32), weights)
    assert np.abs(found.astype(jnp.float32) - wanted).max() <= 2**-8 * np.abs(wanted).max()


def test_plain_and_affine_matrices(matrix):
    inputs = _inputs(3, 64)
    for weights in (matrix("f16", 40, 64), AffineTensor.quantize(_inputs(40, 64), 4, group_size=24)):
        _close(_products(inputs, weights), _wanted(inputs, weights))


def test_vmap_over_matrices(matrix):
    pair = [matrix("q8_0", 40, 64), matrix("q8_0", 40, 64)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    inputs = _inputs(2, 64)
    found = jax.jit(jax.vmap(partial(quantized_matmul, backend="xla")))(inputs, stacked)
    _close(found, _wanted(inputs, pair[0]))


def test_only_cpus_write_values_to_memory_first():
    x, tiles = jnp.ones(3), jnp.arange(3)
    with target_platform("gpu"):
        assert kept(x) is x and kept_tiles(tiles, 3) is tiles
    assert "cond" in str(jax.make_jaxpr(kept)(x)) and "cond" in str(
        jax.make_jaxpr(partial(kept_tiles, count=3))(tiles)
    )


def test_a_token_that_is_no_number_is_alone_with_it(matrix):
    weights, inputs = matrix("q8_0", 72, 512), _inputs(3, 512)
    found = _products(inputs.at[0, 0].set(jnp.nan), weights, backend="xla")
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], _products(inputs, weights, backend="xla")[1:])


def test_a_row_that_is_no_number_is_alone_with_it(matrix):
    weights, inputs = matrix("q8_0", 72, 512), _inputs(2, 512)
    raw = weights.to_bytes().copy()
    raw.view(np.uint8).reshape(-1)[:2] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    found = _products(inputs, QuantizedTensor.from_bytes(raw, "q8_0", (72, 512)), backend="xla")
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:], _products(inputs, weights, backend="xla")[:, 1:])


def test_what_does_not_fit_is_refused(matrix):
    weights = matrix("q8_0", 40, 64)
    with pytest.raises(ValueError, match=r"inputs \(3, 32\) do not fit quantised weights \(40, 64\)"):
        quantized_matmul(jnp.ones((3, 32)), weights)
    with pytest.raises(ValueError, match="inputs must be floating point"):
        quantized_matmul(jnp.ones((3, 64), jnp.int32), weights)
    with pytest.raises(ValueError, match="quantized_matmul has no backend 'cuda'"):
        quantized_matmul(jnp.ones((3, 64)), weights, backend="cuda")
    assert quantized_matmul(jnp.ones((0, 64)), weights).shape == (0, 40)
