"""A feed-forward part of which some tiles of neurons are read gives what those neurons send on."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.quantized import QuantizedFFN, QuantizedTensor, sparse_quantized_ffn
from sparsejax.ops.quantized.kernel import Plan, chunk_values
from sparsejax.ops.quantized.taking import lane_tiles
from tests.draws import normal
from tests.ops.quantized.plain import plain

F, D, OUT = 256, 512, 72
FUSED = ("q8_0", "q4_0", "q4_k", "q6_k")


@pytest.fixture
def ffn(matrix):
    def make(name, *, gated, down=None, biases=False):
        parts = [normal(size, size) for size in (F, F, OUT)] if biases else []
        gate = matrix(name, F, D) if gated else None
        w_out = matrix(down or name, OUT, F, order="columns")
        w_in = matrix(name, F, D)
        flipped = w_in.ordered("columns") if biases else w_in
        return QuantizedFFN(flipped, w_out, gate, *parts)

    return make


def _inputs(*shape):
    return normal(sum(shape), *shape)


def _outputs(inputs, weights, tiles, **options):
    run = partial(sparse_quantized_ffn, tiles=tiles, **options)
    return jax.jit(run)(inputs, weights)


def _wanted(inputs, weights, tiles, activation="silu"):
    """In float64, neuron by neuron."""
    act = {"silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0)}[activation]
    w_in, w_out, w_gate = (None if part is None else plain(part) for part in weights[:3])
    chosen = [32 * tile + lane for tile in tiles for lane in range(32) if 0 <= 32 * tile + lane < F]
    x = np.asarray(inputs, np.float64)
    b_in, b_gate, b_out = (0 if bias is None else np.asarray(bias, np.float64) for bias in weights[3:])
    hidden = x @ w_in.T + b_in
    hidden = act(hidden) if w_gate is None else act(x @ w_gate.T + b_gate) * hidden
    return hidden[..., chosen] @ w_out[:, chosen].T + b_out


def _close(found, wanted, tolerance=2e-6):
    np.testing.assert_allclose(found, wanted, atol=tolerance * (1 + np.abs(wanted).max()), rtol=0)


CASES = [(name, True, "xla") for name in FUSED] + [("q8_0", False, "xla"), ("q4_0", True, "reference")]


@pytest.mark.parametrize(("name", "gated", "backend"), CASES)
def test_one_token(ffn, name, gated, backend):
    weights, inputs, tiles = ffn(name, gated=gated), _inputs(D), jnp.array([1, 4, 7])
    found = jax.jit(partial(sparse_quantized_ffn, backend=backend))(inputs, weights, tiles)
    assert found.shape == (OUT,)
    _close(found, _wanted(inputs, weights, [1, 4, 7]))


@pytest.mark.parametrize(
    ("name", "backend"),
    [("q8_0", "pallas_gpu"), ("q4_k", "pallas_tpu"), ("q4_k", "pallas_gpu"), ("q6_k", "pallas_tpu")],
)
def test_kernels(ffn, name, backend):
    weights, inputs = ffn(name, gated=True), _inputs(3, D)
    found = _outputs(inputs, weights, [0, 5], backend=backend)
    _close(found, _wanted(inputs, weights, [0, 5]))


@pytest.mark.parametrize("tokens", [2, 9])
def test_tokens_share_tiles_or_have_their_own(ffn, tokens):
    weights, inputs = ffn("q8_0", gated=True, down="q4_k", biases=True), _inputs(tokens, D)
    run = jax.jit(partial(sparse_quantized_ffn, activation="relu"))
    _close(run(inputs, weights, jnp.array([2, 3])), _wanted(inputs, weights, [2, 3], "relu"))
    own = np.arange(2 * tokens).reshape(tokens, 2) % 8
    wanted = np.stack([_wanted(inputs[n], weights, own[n], "relu") for n in range(tokens)])
    _close(run(inputs, weights, jnp.asarray(own)), wanted)
    _close(_outputs(inputs, weights, own, activation="relu", backend="reference"), wanted)


@pytest.mark.parametrize("backend", ["reference", "xla", "pallas"])
def test_tiles_out_of_range_add_nothing_and_twins_add_twice(ffn, backend):
    weights, inputs = ffn("q4_0", gated=True), _inputs(D)
    for tiles in ([3, 8, -1, 3], [-5, 3, 3, 8]):
        _close(_outputs(inputs, weights, tiles, backend=backend), _wanted(inputs, weights, [3, 3]))


def test_all_and_none(ffn):
    weights, inputs = ffn("q8_0", gated=False, biases=True), _inputs(2, D)
    _close(sparse_quantized_ffn(inputs, weights, None), _wanted(inputs, weights, range(8)))
    none = sparse_quantized_ffn(inputs, weights, jnp.zeros(0, jnp.int32))
    assert (none == weights.b_out).all()


@pytest.mark.parametrize("down", ["f16", "q8_0"])
def test_mixed_formats(ffn, down):
    weights, inputs = ffn("q4_k", gated=True, down=down), _inputs(1, D)
    for backend in ("xla", "pallas"):
        found = _outputs(inputs, weights, [6], backend=backend)
        _close(found, _wanted(inputs, weights, [6]))


@pytest.mark.parametrize("backend", ["xla", "pallas"])
def test_gradients(ffn, backend):
    weights, inputs = ffn("q8_0", gated=True, biases=True), _inputs(2, D)
    tiles = jnp.array([[0, 5], [2, 3]])

    def loss(inputs, bias, backend):
        mine = weights._replace(b_in=bias)
        outputs = sparse_quantized_ffn(inputs, mine, tiles, backend=backend)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum()

    slopes = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    wanted, found = (slopes(inputs, weights.b_in, name) for name in ("reference", backend))
    for mine, other in zip(found, wanted, strict=True):
        _close(mine, other, 1e-5)
    # and the reference's own is that of the written formula
    step = 1e-2 * _inputs(2, D)
    value = jax.jit(loss, static_argnums=2)
    rise = value(inputs + step, weights.b_in, "reference") - value(inputs - step, weights.b_in, "reference")
    assert rise / 2 == pytest.approx(float((wanted[0] * step).sum()), rel=0.02, abs=1e-3)


def test_plain_rows_and_tiles_of_all_tokens_have_the_gradient_of_the_formula(matrix):
    w_in, w_out = matrix("f16", 64, 32), matrix("q8_0", 32, 64, order="columns")
    x, cotangent = _inputs(1, 32), normal(7, 1, 32)

    def outputs(x):
        return sparse_quantized_ffn(x, QuantizedFFN(w_in, w_out), [1], activation="relu", backend="xla")

    found, pull_back = jax.vjp(jax.jit(outputs), x)
    _close(found, _wanted(x, QuantizedFFN(w_in, w_out), [1], "relu"))
    rows, columns = plain(w_in)[32:], plain(w_out)[:, 32:]
    slopes = np.asarray(cotangent, np.float64) @ columns * (np.asarray(x) @ rows.T > 0)
    _close(pull_back(cotangent)[0], slopes @ rows)


def test_one_program_serves_every_choice_of_as_many_tiles(ffn):
    weights, inputs = ffn("q8_0", gated=True), _inputs(D)
    run = jax.jit(sparse_quantized_ffn)
    for tiles in ([0, 1], [3, 7]):
        run(inputs, weights, jnp.array(tiles))
    assert run._cache_size() == 1


def test_what_does_not_fit_is_refused(ffn):
    weights = ffn("q8_0", gated=True)
    run = partial(sparse_quantized_ffn, jnp.ones((2, D)))
    with pytest.raises(ValueError, match=r"inputs \(2, 512\) do not fit neurons with weights \(72, 256\)"):
        run(weights._replace(w_in=weights.w_out), [0])
    with pytest.raises(ValueError, match="inputs must be floating point, not int32"):
        sparse_quantized_ffn(jnp.ones((2, D), jnp.int32), weights, [0])
    wide = QuantizedTensor.from_bytes(bytes(128 * 34), "q8_0", (128, 32), lanes=128)  # for TPUs
    with pytest.raises(ValueError, match="tiles of 32 rows cannot be taken from planes with 128 lanes"):
        lane_tiles(wide, jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match="q8_0 has a scale for each sub-block, not 1 for 4"):
        chunk_values(Plan("q8_0", "rows", 4), {"low": jnp.zeros((4, 32, 1), jnp.int8), "d": jnp.ones((1, 1))})
    with pytest.raises(ValueError, match=r"w_out must have shape \(o, 256\), blocks along neurons"):
        run(weights._replace(w_out=weights.w_in), [0])
    with pytest.raises(ValueError, match=r"w_gate must have shape \(256, 512\), not \(72, 256\)"):
        run(weights._replace(w_gate=weights.w_out), [0])
    with pytest.raises(ValueError, match=r"b_out must have shape \(72,\), not \(3,\)"):
        run(weights._replace(b_out=jnp.ones(3)), [0])
    with pytest.raises(ValueError, match=r"tiles must be integers \(k,\) or \(2, 'k'\), not float32"):
        run(weights, [0.5])
    with pytest.raises(ValueError, match="no activation 'swish'"):
        run(weights, [0], activation="swish")
