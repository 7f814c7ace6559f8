"""Cross entropy in slices: equal to the whole one, and smaller."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.ops.token_ids import IGNORED
from sparsejax.training.cross_entropy import chunked_cross_entropy
from tests import golden

B, T, D, V = 2, 13, 6, 11


@functools.partial(jax.jit, static_argnums=0)
def _inputs(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (B, T, D), dtype)
    kernel = jax.random.normal(keys[1], (D, V))
    targets = jax.random.randint(keys[2], (B, T), 0, V).at[0, 3].set(IGNORED)
    return hidden, kernel, targets, jax.random.uniform(keys[3], (B, T))


@jax.jit
def _whole(hidden, kernel, targets, weights):
    logits = (hidden @ kernel.astype(hidden.dtype)).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
    weights = jnp.where(targets == IGNORED, 0, weights)
    return jnp.sum(losses * weights) / jnp.sum(weights)


def test_values_and_gradients_are_those_of_the_whole():
    hidden, kernel, targets, weights = _inputs()

    def mean(hidden, kernel, chunk_tokens):
        return chunked_cross_entropy(hidden, kernel, targets, weights, chunk_tokens=chunk_tokens).mean

    expected = jax.jit(jax.value_and_grad(_whole, (0, 1)))(hidden, kernel, targets, weights)
    for chunk_tokens in (1, 10, 1024):  # a step at a time, a last slice that is filled up, all at once
        found = jax.jit(jax.value_and_grad(mean, (0, 1)), static_argnums=2)(hidden, kernel, chunk_tokens)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)


def test_sum_and_count_leave_out_ignored_targets():
    hidden, kernel, targets, _ = _inputs()
    loss = chunked_cross_entropy(hidden, kernel, targets)
    assert float(loss.weight) == B * T - 1
    np.testing.assert_allclose(loss.mean, _whole(hidden, kernel, targets, jnp.ones((B, T))), rtol=1e-6)
    nothing = chunked_cross_entropy(hidden, kernel, jnp.full((B, T), IGNORED))
    assert (float(nothing.total), float(nothing.weight), float(nothing.mean)) == (0, 0, 0)


@pytest.mark.golden("src_seed")
def test_ignored_targets_are_those_of_the_published_loss():
    arrays = golden.arrays("ten", "src_seed")
    logits = jnp.asarray(arrays["T64/logits"])
    loss = chunked_cross_entropy(logits, jnp.eye(logits.shape[-1]), jnp.asarray(arrays["ignore/targets"]))
    np.testing.assert_allclose(loss.mean, arrays["ignore/ce_loss"], rtol=1e-6)


def test_a_bfloat16_softmax_is_taken_in_float32():
    hidden, kernel, targets, _ = _inputs(jnp.bfloat16)
    loss = chunked_cross_entropy(hidden, kernel, targets, chunk_tokens=5)
    exact = _whole(hidden.astype(jnp.float32), kernel, targets, jnp.ones((B, T)))
    assert loss.total.dtype == jnp.float32
    np.testing.assert_allclose(loss.mean, exact, rtol=3e-3)  # the kernel is rounded to bfloat16


def test_logits_of_all_tokens_are_never_held():
    tokens, width, vocabulary, chunk = 512, 8, 1000, 32

    def mean(hidden, kernel, targets):
        return chunked_cross_entropy(hidden, kernel, targets, chunk_tokens=chunk).mean

    shapes = [(tokens, width), (width, vocabulary)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    arguments.append(jax.ShapeDtypeStruct((tokens,), jnp.int32))
    compiled = jax.jit(jax.grad(mean, (0, 1))).lower(*arguments).compile()
    sizes = [
        np.prod([int(size) for size in shape.split(",") if size])
        for shape in re.findall(r"f32\[([\d,]*)\]", compiled.as_text())
    ]
    assert max(sizes) == chunk * vocabulary
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * tokens * vocabulary / 3


def test_slices_of_no_token_are_refused():
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1, not 0"):
        chunked_cross_entropy(*_inputs()[:3], chunk_tokens=0)
