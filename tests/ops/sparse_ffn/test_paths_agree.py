"""Every path computes the same function, with the same gradients."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.sparse_ffn import ACTIVATIONS, api, dense_ffn, sparse_ffn
from sparsejax.ops.sparse_ffn.batched import batched_ffn, room
from sparsejax.ops.sparse_ffn.block import SIDE_BY_SIDE, Plan, tile_rows
from sparsejax.ops.sparse_ffn.kernel import activated
from sparsejax.ops.sparse_ffn.tiles import tiles_of
from tests.draws import normal

# (f, d, block, tokens, top_k): even; uneven last block; one block larger than the FFN; a single token
CASES = [(96, 16, 16, 40, 40), (50, 7, 16, 33, 33), (10, 7, 16, 5, 3), (64, 8, 8, 1, 20)]


def _problem(ffn, case, *, full):
    f, d, block, tokens, _ = case
    inputs, scores = normal(1, tokens, d), normal(2, tokens, -(-f // block))
    return inputs, ffn(f, d, full=full), scores, normal(3, tokens, f)


def _loss(inputs, weights, scores, top_k, **options):
    outputs = sparse_ffn(inputs, weights, scores, top_k, **options)
    return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs


def _outputs(inputs, weights, scores, top_k, **options):
    return jax.jit(partial(sparse_ffn, top_k=top_k, **options))(inputs, weights, scores)


def _with_gradients(top_k, **options):
    """((loss, outputs), gradients) of inputs, weights and scores, compiled as a whole."""

    def loss(inputs, weights, scores):
        return _loss(inputs, weights, scores, top_k, **options)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


def _close(mine, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * (1 + float(jnp.abs(b).max())), rtol=0)


@pytest.mark.parametrize(("case", "full"), [(CASES[0], False), (CASES[1], True), (CASES[3], True)], ids=str)
def test_blocks(ffn, case, full):
    _, _, block, _, top_k = case
    inputs, weights, scores, _ = _problem(ffn, case, full=full)
    options = {"block_size": block, "activation": "silu"}
    (_, wanted), gradient = _with_gradients(top_k, path="masked", **options)(inputs, weights, scores)
    traced = jnp.asarray(top_k)
    for path, count in (("gather", top_k), ("block", top_k), ("block", traced))[: 3 if full else 2]:
        (_, outputs), mine = _with_gradients(count, path=path, **options)(inputs, weights, scores)
        _close(outputs, wanted, 1e-6)
        _close(mine, gradient, 2e-6)


@pytest.mark.parametrize("case", CASES[2:3], ids=str)
def test_neurons(ffn, case):
    inputs, weights, _, scores = _problem(ffn, case, full=True)
    (_, wanted), gradient = _with_gradients(case[-1], path="masked")(inputs, weights, scores)
    (_, outputs), mine = _with_gradients(case[-1], path="gather")(inputs, weights, scores)
    _close(outputs, wanted, 1e-6)
    _close(mine, gradient, 2e-6)


@pytest.mark.parametrize("backend", ["pallas_tpu", "pallas_gpu"])
@pytest.mark.parametrize("case", CASES[1:2], ids=str)
def test_kernels(ffn, backend, case):
    inputs, weights, scores, _ = _problem(ffn, case, full=True)
    reference, kernel = (
        _with_gradients(case[-1], block_size=16, backend=name) for name in ("reference", backend)
    )
    (_, wanted), gradient = reference(inputs, weights, scores)
    (_, outputs), mine = kernel(inputs, weights, scores)
    _close(outputs, wanted, 1e-6)
    _close(mine, gradient, 2e-6)


def test_a_block_that_every_token_wants_drops_none(ffn):
    inputs, weights = normal(2, 300, 8), ffn(64, 8)
    scores = jnp.zeros((300, 8)).at[:, 3].set(1.0)
    wanted = _outputs(inputs, weights, scores, 16, block_size=8, path="masked")
    outputs = _outputs(inputs, weights, scores, 16, block_size=8, path="block")
    np.testing.assert_allclose(outputs, wanted, atol=1e-6)


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_blocks_side_by_side(ffn, full, crowded, monkeypatch):
    """With an uneven last block, of a gated FFN too, and with blocks that lack room for some tokens."""
    inputs, weights = normal(6, 70, 12), ffn(90, 12, full=full)
    scores = normal(7, 70, 6) + crowded * 9 * jnp.eye(6)[2]
    taken = []
    monkeypatch.setattr(api, "batched_ffn", lambda *given: taken.append(given) or batched_ffn(*given))
    options = {"block_size": 16, "activation": "silu"}
    (_, wanted), gradient = _with_gradients(32, path="masked", **options)(inputs, weights, scores)
    (_, outputs), mine = _with_gradients(32, path="block", **options)(inputs, weights, scores)
    beyond = (scores >= jnp.sort(scores, axis=1)[:, 4:5]).sum(axis=0).max() > room(70, 6, most=2)
    assert taken and beyond == crowded
    _close(outputs, wanted, 1e-6)
    _close(mine, gradient, 3e-6)


@pytest.mark.parametrize("crowded", [False, True])
def test_blocks_side_by_side_add_up_in_wide_numbers(ffn, crowded):
    """Of 16-bit inputs in float32, their gradient too; of float64 inputs beside weights of float32."""
    inputs, weights = normal(6, 70, 12), ffn(96, 12)
    scores = normal(7, 70, 6) + crowded * 9 * jnp.eye(6)[2]
    options = {"block_size": 16, "activation": "silu"}
    (_, wanted), (of_inputs, _) = _with_gradients(80, path="masked", **options)(inputs, weights, scores)
    narrow = jax.tree.map(jnp.bfloat16, (inputs, weights))
    (_, outputs), (mine, _) = _with_gradients(80, path="block", **options)(*narrow, scores)
    assert outputs.dtype == mine.dtype == jnp.bfloat16
    for a, b in ((outputs, wanted), (mine, of_inputs)):
        _close(a.astype(jnp.float32), b, 0.02)
    with jax.enable_x64(True):
        wide = _outputs(inputs.astype(jnp.float64), weights, scores, 80, path="block", **options)
        assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, wanted, atol=1e-5)


@pytest.mark.parametrize("crowded", [False, True])
def test_a_broken_token_breaks_no_other_side_by_side(ffn, crowded):
    inputs, weights = normal(6, 70, 12).at[41].set(jnp.nan), ffn(96, 12)
    scores = normal(7, 70, 6) + crowded * 9 * jnp.eye(6)[2]
    outputs = _outputs(inputs, weights, scores, 32, block_size=16, path="block")
    wanted = _outputs(inputs, weights, scores, 32, block_size=16, path="masked")
    np.testing.assert_array_equal(jnp.isnan(outputs).any(axis=1), jnp.arange(70) == 41)
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)


def test_an_odd_number_of_tiles_in_pairs(ffn):
    inputs, weights = normal(9, 700, 8), ffn(16, 8)
    scores = jnp.zeros((700, 2)).at[::14, 1].set(1.0)  # 650 tokens fill two tiles of 384 rows, 50 a third
    assert tile_rows(700, 2, most=1) == 384 >= SIDE_BY_SIDE
    assert tiles_of(scores > 0, rows=384, most=1).tokens.shape[0] % 2 == 0
    wanted = _outputs(inputs, weights, scores, 8, block_size=8, path="masked")
    outputs = _outputs(inputs, weights, scores, 8, block_size=8, path="block")
    np.testing.assert_allclose(outputs, wanted, atol=1e-6)


def test_unselected_neurons_have_no_gradient(ffn):
    inputs, weights = normal(3, 4, 8), ffn(32, 8)
    scores = jnp.tile(jnp.arange(32.0), (4, 1))
    gradient = jax.jit(jax.grad(lambda w: sparse_ffn(inputs, w, scores, 5, path="gather").sum()))(weights)
    assert not gradient.w_in[:27].any() and gradient.w_in[27:].all()


def test_sixteen_bit_products_are_summed_in_float32(ffn):
    weights = ffn(256, 64, dtype=jnp.bfloat16)
    inputs = normal(4, 3, 64).astype(jnp.bfloat16)
    scores = normal(5, 3, 16)
    exact = _outputs(*jax.tree.map(jnp.float32, (inputs, weights)), scores, 128, block_size=16, path="masked")
    for path in ("masked", "gather", "block"):
        outputs = _outputs(inputs, weights, scores, 128, block_size=16, path=path)
        assert outputs.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            outputs.astype(jnp.float32), exact, atol=0.02 * float(jnp.abs(exact).max())
        )


def test_every_activation_is_zero_at_zero():
    assert [float(function(jnp.zeros(()))) for function in ACTIVATIONS.values()] == [0.0] * len(ACTIVATIONS)


def test_gelu_is_exact():
    sums = jnp.linspace(-8, 8, 401)
    exact = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in sums.tolist()]
    for form in (ACTIVATIONS["gelu"](sums), activated(Plan(1, "gelu"), sums, None)):
        np.testing.assert_allclose(form, exact, rtol=0, atol=1e-6)


def test_extremes_of_the_count(ffn):
    weights, inputs = ffn(32, 8, full=True), normal(6, 2, 3, 8)
    scores = jnp.zeros((2, 3, 32))
    bias = jnp.broadcast_to(weights.b_out, inputs.shape)
    dense = dense_ffn(inputs, weights)
    for path in ("gather", "auto"):
        np.testing.assert_array_equal(sparse_ffn(inputs, weights, scores, 0, path=path), bias)
        np.testing.assert_array_equal(sparse_ffn(inputs, weights, scores, 32, path=path), dense)
    all_blocks = sparse_ffn(inputs, weights, scores[..., :5], jnp.asarray(32), block_size=7, path="block")
    np.testing.assert_allclose(all_blocks, dense, atol=2e-6)
    assert sparse_ffn(inputs[:0], weights, scores[:0], 4).shape == (0, 3, 8)
