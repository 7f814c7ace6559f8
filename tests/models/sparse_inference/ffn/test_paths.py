"""Every path computes what `chosen` says, with the same gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sparse_inference.calibration.compensation import Compensation, fit_compensation
from sparsejax.models.sparse_inference.config import SparsityConfig
from sparsejax.models.sparse_inference.ffn.crossover import choose_path
from sparsejax.models.sparse_inference.ffn.paths import predicted_ffn
from sparsejax.models.sparse_inference.ffn.plan import FFNPlan, chosen
from sparsejax.ops.backends import target_platform
from sparsejax.ops.sparse_ffn import FFNWeights, dense_ffn, masked_ffn

NEURONS, WIDTH = 50, 64
TOP, ABOVE = SparsityConfig.with_top_k(12), SparsityConfig.with_threshold(0.9)


def _weights():
    keys = iter(jax.random.split(jax.random.key(0), 6))
    normal = lambda *shape: 0.3 * jax.random.normal(next(keys), shape)  # noqa: E731
    matrices = normal(NEURONS, WIDTH), normal(NEURONS, 20), normal(NEURONS, WIDTH)
    return FFNWeights(*matrices, normal(NEURONS), normal(NEURONS), normal(20))


WEIGHTS = _weights()


@partial(jax.jit, static_argnums=(3, 4))
def _gradients(inputs, weights, scores, sparsity, plan):
    def loss(inputs, weights):
        outputs = predicted_ffn(inputs, weights, scores, sparsity, activation="drelu", plan=plan)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(inputs, weights)


def _problem(tokens):
    keys = jax.random.split(jax.random.key(1), 2)
    shape = () if tokens == 1 else (tokens,)
    return (jax.random.normal(key, (*shape, size)) for key, size in zip(keys, (WIDTH, NEURONS), strict=True))


@pytest.mark.parametrize(
    ("tokens", "sparsity", "plan", "path"),
    [
        (1, TOP, FFNPlan(), "rows"),
        (1, TOP, FFNPlan(block_size=4, hot=5), "rows"),
        (1, ABOVE, FFNPlan(hot=3), "rows"),
        (1, SparsityConfig.with_threshold(0.0), FFNPlan(hot=20), "rows"),  # more than are read row by row
        (3, TOP, FFNPlan(), "rows"),
        (3, TOP, FFNPlan(block_size=4, hot=5), "rows"),
        (3, SparsityConfig.with_top_k(3), FFNPlan(), "union"),
        (3, TOP, FFNPlan(), "union"),
        (3, ABOVE, FFNPlan(block_size=4), "union"),
        (7, TOP, FFNPlan(block_size=4, group=3), "shared"),
        (12, TOP, FFNPlan(block_size=4, group=0), "shared"),
    ],
    ids=str,
)
def test_paths_agree_with_the_masked_one(tokens, sparsity, plan, path):
    inputs, scores = _problem(tokens)
    (_, wanted), gradient = _gradients(inputs, WEIGHTS, scores, sparsity, _with(plan, "masked"))
    (_, outputs), mine = _gradients(inputs, WEIGHTS, scores, sparsity, _with(plan, path))
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * (1 + float(jnp.abs(b).max())))
    mask = chosen(scores.reshape(-1, NEURONS), sparsity, plan).reshape(scores.shape)
    np.testing.assert_allclose(wanted, masked_ffn(inputs, WEIGHTS, mask, activation="drelu"), atol=1e-5)


def _with(plan, path):
    return FFNPlan(plan.block_size, plan.group, plan.hot, path)


@pytest.mark.parametrize(
    ("sparsity", "plan", "path"),
    [
        (ABOVE, FFNPlan(), "rows"),  # lists of unknown length, of several tokens
        (TOP, FFNPlan(), "shared"),  # nothing is shared
        (ABOVE, FFNPlan(group=0), "shared"),
    ],
    ids=str,
)
def test_what_has_no_list_is_masked(sparsity, plan, path):
    inputs, scores = _problem(3)
    outputs, wanted = (
        predicted_ffn(inputs, WEIGHTS, scores, sparsity, activation="drelu", plan=_with(plan, name))
        for name in (path, "masked")
    )
    np.testing.assert_array_equal(outputs, wanted)


def test_choices_by_hand():
    scores = np.asarray([[3.0, -9, 0, 1, 2, 0.5], [0.0, 0, 1, 2, 0, 0]], np.float32)
    pick = lambda sparsity, plan: np.asarray(chosen(jnp.asarray(scores), sparsity, plan)).astype(int).tolist()  # noqa: E731
    two = SparsityConfig.with_top_k(2)
    assert pick(two, FFNPlan()) == [[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]]
    assert pick(two, FFNPlan(hot=1)) == [[1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0]]
    assert pick(two, FFNPlan(block_size=2)) == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert pick(two, FFNPlan(block_size=2, group=0)) == [[1, 1, 0, 0, 0, 0]] * 2
    assert pick(SparsityConfig.with_threshold(1.0), FFNPlan(block_size=4)) == [[1] * 6, [1, 1, 1, 1, 0, 0]]


def test_no_tokens_and_no_neurons():
    inputs = jnp.zeros((0, WIDTH))
    assert predicted_ffn(inputs, WEIGHTS, jnp.zeros((0, NEURONS)), TOP, activation="relu").shape == (0, 20)
    none = SparsityConfig.with_threshold(5.0)
    outputs = predicted_ffn(jnp.ones(WIDTH), WEIGHTS, jnp.zeros(NEURONS), none, activation="relu")
    np.testing.assert_allclose(outputs, WEIGHTS.b_out, atol=1e-6)


@pytest.mark.parametrize("count", [45, 50])
def test_tokens_give_the_same_alone_and_beside_others(count):
    inputs, scores = _problem(1)
    scores = jnp.abs(scores)  # where tokens choose together, negative ones count alike
    many, plan = SparsityConfig.with_top_k(count), FFNPlan()
    alone = predicted_ffn(inputs, WEIGHTS, scores, many, activation="relu", plan=plan)
    mask = chosen(scores[None], many, plan)[0]
    np.testing.assert_allclose(alone, masked_ffn(inputs, WEIGHTS, mask, activation="relu"), atol=1e-5)
    twice = [jnp.tile(part, (2, 1)) for part in (inputs, scores)]
    for group in (1, 0):
        plan = FFNPlan(group=group)
        both = predicted_ffn(twice[0], WEIGHTS, twice[1], many, activation="relu", plan=plan)
        np.testing.assert_allclose(both, jnp.tile(alone, (2, 1)), atol=1e-5)
    dense = dense_ffn(inputs, WEIGHTS, activation="relu")
    assert (np.abs(dense - alone).max() > 1e-3) == (count < NEURONS)


@pytest.mark.parametrize("path", ["auto", "rows", "masked"])
@pytest.mark.parametrize("count", [35, 50])
def test_compensation_is_not_added_to_what_all_neurons_give(path, count):
    inputs, _ = _problem(1)
    scores = jnp.where(jnp.arange(NEURONS) < count, 1.0, -1.0)
    fitted = Compensation(jnp.zeros((20, 1)), jnp.zeros((1, WIDTH)), jnp.full(20, 100.0))
    plan, above = FFNPlan(path=path), SparsityConfig.with_threshold(0.0)
    outputs = predicted_ffn(inputs, WEIGHTS, scores, above, activation="relu", plan=plan, fitted=fitted)
    wanted = masked_ffn(inputs, WEIGHTS, scores > 0, activation="relu") + (100 if count < NEURONS else 0)
    np.testing.assert_allclose(outputs, wanted, atol=2e-5)


def test_paths_by_size():
    assert [choose_path(1, part) for part in (0.05, 0.6, 0.7, 1.0)] == ["rows", "rows", "masked", "dense"]
    assert choose_path(4, 0.05) == "rows" and choose_path(64, 0.05) == "masked"
    assert [choose_path(tokens, 0.2) for tokens in (2, 4, 8)] == ["rows", "rows", "masked"]
    assert [choose_path(tokens, None) for tokens in (1, 2, 9)] == ["rows", "union", "masked"]
    assert choose_path(9, None, shared=True) == "shared"
    assert choose_path(1, 0.9) == choose_path(512, 0.9, shared=True) == "masked"  # dense drops nothing
    assert choose_path(512, 0.5, shared=True) == "shared" and choose_path(512, 1.0, shared=True) == "dense"
    with target_platform("gpu"):
        assert choose_path(1, 0.1) == "rows" and choose_path(4, 0.1) == "masked"


def test_plans_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="block_size must be a whole number of at least 1, not 0"):
        FFNPlan(block_size=0)
    with pytest.raises(ValueError, match="no path 'fast'"):
        FFNPlan(path="fast")


def test_what_does_not_fit_is_refused():
    inputs, scores = _problem(1)
    with pytest.raises(ValueError, match=r"inputs of shape \(7,\) do not fit: \(\.\.\., 64\) is needed"):
        predicted_ffn(inputs[:7], WEIGHTS, scores, TOP, activation="drelu")
    with pytest.raises(ValueError, match=r"scores must have shape \(50,\), not \(7,\)"):
        predicted_ffn(inputs, WEIGHTS, scores[:7], TOP, activation="drelu")
    strictly = partial(predicted_ffn, inputs, WEIGHTS, sparsity=TOP, activation="drelu", strict=True)
    with pytest.raises(ValueError, match="strict needs scores with values; call it outside of jit"):
        jax.eval_shape(strictly, scores)


def test_compensation_repairs_the_outputs_of_dropped_blocks():
    draws = np.random.default_rng(3)
    inputs = (draws.normal(size=(300, 6)) @ draws.normal(size=(6, WIDTH))).astype(np.float32)
    scores = inputs @ np.asarray(WEIGHTS.w_gate).T
    options = {"activation": "relu", "plan": FFNPlan(block_size=5, group=0)}
    half = SparsityConfig.with_top_k(25)
    sparse = predicted_ffn(inputs, WEIGHTS, scores, half, **options)
    exact = dense_ffn(inputs, WEIGHTS, activation="relu")
    fitted = fit_compensation(inputs[:200], (exact - sparse)[:200], rank=6)
    repaired = predicted_ffn(inputs, WEIGHTS, scores, half, **options, fitted=fitted)
    before, after = (np.linalg.norm((part - exact)[200:]) for part in (sparse, repaired))
    assert after < 0.9 * before
