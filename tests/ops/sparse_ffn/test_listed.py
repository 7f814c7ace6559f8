"""Neurons of a list: few tokens and many, odd widths, places of a mask, the largest of many scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.ops.backends import target_platform
from sparsejax.ops.sparse_ffn import GATED_ACTIVATIONS, listed_ffn, mask_indices, masked_ffn, top_k_indices
from sparsejax.ops.sparse_ffn.listed import few_outputs, many_outputs
from sparsejax.ops.sparse_ffn.rows import row_products, row_sum
from tests.draws import normal


@pytest.mark.parametrize("width", [7, 64])
def test_few_and_many_tokens_agree(ffn, width):
    weights = ffn(40, width, full=True)
    inputs = normal(0, 9, width)
    listed = jnp.asarray([3, 17, 40, 5, 3, -1])
    gates = jnp.arange(54).reshape(9, 6) % 4 > 0
    few, many = (
        jax.jit(form, static_argnums=3)(inputs, weights, listed, "drelu", gates=gates)
        for form in (few_outputs, many_outputs)
    )
    np.testing.assert_allclose(few, many, atol=1e-5)
    once = listed_ffn(inputs, weights, listed[jnp.asarray([0, 1, 3])], activation="swiglu")
    mask = jnp.zeros((9, 40), bool).at[:, jnp.asarray([3, 5, 17])].set(True)
    np.testing.assert_allclose(once, masked_ffn(inputs, weights, mask, activation="swiglu"), atol=1e-5)


def test_sixteen_bit_rows_are_summed_in_float32():
    draws = np.random.default_rng(0)
    matrix = jnp.asarray(draws.normal(size=(30, 64)), jnp.bfloat16)
    inputs, values = (jnp.asarray(draws.normal(size=(2, size)), jnp.bfloat16) for size in (64, 5))
    listed = jnp.asarray([4, 29, 0, 7, 4])
    rows = np.asarray(matrix, np.float32)[np.asarray(listed)]
    np.testing.assert_allclose(row_products(matrix, listed, inputs), np.float32(inputs) @ rows.T, atol=1e-5)
    np.testing.assert_allclose(row_sum(values, matrix, listed), np.float32(values) @ rows, atol=1e-5)


def test_other_platforms_multiply_gathered_rows(ffn):
    weights, inputs = ffn(20, 64), normal(0, 2, 64)
    wanted = listed_ffn(inputs, weights, jnp.asarray([1, 4]), activation="relu")
    with target_platform("gpu"):
        other = listed_ffn(inputs, weights, jnp.asarray([1, 4]), activation="relu")
    np.testing.assert_allclose(other, wanted, atol=1e-5)
    rows, values, listed = normal(0, 20, 64), normal(0, 2, 2), jnp.asarray([1, 4])
    with target_platform("gpu"):
        other = row_sum(values, rows, listed)
    np.testing.assert_allclose(other, row_sum(values, rows, listed), atol=1e-5)


@pytest.mark.parametrize("places", [1, 63, 64, 65, 1000])
def test_places_of_a_mask(places):
    draws = np.random.default_rng(places)
    masks = draws.random((4, places)) < np.asarray([[0.0], [0.1], [0.7], [1.0]])
    for size in {1, places // 3 + 1, places + 2}:
        found = np.asarray(jax.jit(mask_indices, static_argnums=1)(masks, size))
        for mask, mine in zip(masks, found, strict=True):
            there = np.flatnonzero(mask)[:size]
            np.testing.assert_array_equal(mine, np.pad(there, (0, size - len(there)), constant_values=places))


def test_the_largest_of_many_scores():
    scores = np.round(np.random.default_rng(0).normal(size=(1, 3000)), 2).astype(np.float32)  # with ties
    for top_k in (1, 300, 2999):
        best = np.sort(np.argsort(-scores[0], kind="stable")[:top_k])
        np.testing.assert_array_equal(jax.jit(top_k_indices, static_argnums=1)(scores, top_k)[0], best)


def test_gated_names_need_gates(ffn):
    for name in GATED_ACTIVATIONS:
        with pytest.raises(ValueError, match=f"no activation '{name}'; it needs weights of a gate"):
            listed_ffn(jnp.ones(4), ffn(8, 4), jnp.asarray([1]), activation=name)


def test_inputs_of_another_width_are_refused(ffn):
    with pytest.raises(ValueError, match=r"inputs of shape \(5,\) do not fit: \(\.\.\., 4\) is needed"):
        listed_ffn(jnp.ones(5), ffn(8, 4), jnp.asarray([1]), activation="relu")
