"""The feature recipes as functions: slices, shapes, types, limits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.models.ultra_sparse import expand_input
from sparsejax.models.ultra_sparse.features import LEAK_COLUMNS, column_table
from tests.models.ultra_sparse import oracle

RECIPES = ("trained", "readme", "sine_problem", "library")
X = np.array([-6.1, -0.7, 0.0, 2.3, 5.9], np.float32)
recipes = pytest.mark.parametrize("recipe", RECIPES)
FULL = {}


def full(recipe):
    if recipe not in FULL:
        FULL[recipe] = np.asarray(expand_input(X, recipe))
    return FULL[recipe]


@recipes
def test_every_recipe_equals_its_formulas(recipe):
    # float32 arguments of up to 600 rad (100 * 2 pi), rounded in product and sum: 600 * 2**-23
    np.testing.assert_allclose(full(recipe), oracle.expand(X, recipe), rtol=0, atol=8e-5)
    assert full(recipe).dtype == np.float32


@recipes
@settings(max_examples=8)
@given(columns=st.lists(st.integers(0, 255), min_size=1, max_size=8))
def test_chosen_columns_are_slices_of_all(recipe, columns):
    found = np.asarray(expand_input(X, recipe, columns=columns))
    np.testing.assert_allclose(found, full(recipe)[:, columns], rtol=0, atol=1e-6)


@recipes
def test_each_single_column_is_the_slice(recipe):
    """Kind by kind: one column of every kind in the table."""
    kinds = {column.kind: number for number, column in enumerate(column_table(recipe))}
    for number in kinds.values():
        alone = expand_input(X, recipe, columns=[number])
        np.testing.assert_allclose(alone[:, 0], full(recipe)[:, number], rtol=0, atol=1e-6)


def test_columns_may_repeat_and_come_in_any_order():
    found = np.asarray(expand_input(X, columns=[117, 4, 117]))
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    np.testing.assert_allclose(found[:, 0], -found[:, 1], atol=1e-7)
    assert expand_input(X, columns=[]).shape == (5, 0)


def test_the_leaks_that_the_docstring_names():
    target = np.sin(X)
    assert LEAK_COLUMNS == {"trained": (4, 117), "library": (0,)}
    np.testing.assert_allclose(full("trained")[:, 4], target, atol=1e-6)
    np.testing.assert_allclose(full("trained")[:, 117], -target, atol=1e-6)
    assert not full("trained")[:, 15].any()
    np.testing.assert_allclose(full("library")[:, 0], target, atol=1e-6)


@pytest.mark.parametrize(("true", "noise"), [(16, 240), (0, 5), (3, 0), (7, 60), (20, 10), (0, 0)])
def test_truncated_blocks_of_the_trained_recipe(true, noise):
    found = expand_input(X, true_columns=true, noise_columns=noise)
    assert found.shape == (5, true + noise)
    if true + noise:
        expected = oracle.expand(X, "trained", true, noise)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", [(), (5, 1), (2, 3), (0,)])
def test_columns_are_the_last_axis_of_any_shape(shape):
    x = np.resize(X, shape)
    found = expand_input(x, columns=[4, 15])
    assert found.shape == (*shape, 2)
    np.testing.assert_allclose(found[..., 0], np.sin(x), atol=1e-6)


@pytest.mark.parametrize(
    ("given_type", "expected"), [("int32", "float32"), ("bfloat16", "float32"), ("float16", "float32")]
)
def test_narrow_types_are_computed_in_float32(given_type, expected):
    x = jnp.arange(3).astype(given_type)
    found = expand_input(x, columns=[4])
    assert found.dtype == expected
    np.testing.assert_allclose(found[:, 0], np.sin(np.arange(3)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "legacy"}, ("'legacy'", "'trained'", "'library'")),
        ({"true_columns": -1}, ("-1", "negative")),
        ({"noise_columns": -2}, ("-2", "negative")),
        ({"noise_columns": 241}, ("240", "241", "anew on every call")),
        ({"recipe": "readme", "true_columns": 17}, ("16", "17")),
        ({"recipe": "sine_problem", "true_columns": 17}, ("16", "17")),
        ({"columns": [0, 256]}, ("256", "256 columns")),
        ({"columns": [-1]}, ("-1",)),
        ({"columns": [64], "noise_columns": 48}, ("64", "64 columns")),
    ],
)
def test_impossible_requests_say_what_is_possible(options, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        expand_input(X, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_column_numbers_are_integers():
    with pytest.raises(TypeError):
        expand_input(X, columns=[1.7])
    assert expand_input(X, columns=np.array([4, 5])).shape == (5, 2)


def test_the_global_random_state_is_left_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    column_table.cache_clear()
    for recipe in RECIPES:
        column_table(recipe)
    assert np.array_equal(np.random.get_state()[1], before), "the original reseeded it on every call"


@pytest.mark.parametrize("recipe", ["trained", "readme"])
def test_slopes_are_finite_everywhere(recipe):
    x = np.array([-100.0, -6.3, 0.0, 1e-30, 2.0, 100.0], np.float32)
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda value: expand_input(value, recipe))))(x)
    assert slope.shape == (6, 256) and bool(jnp.isfinite(slope).all())
    np.testing.assert_allclose(slope[:, 4 if recipe == "trained" else 0], np.cos(x), atol=1e-5)


def test_negative_x_keeps_the_sign_of_odd_powers():
    found = np.asarray(expand_input(np.float32(-6.0), columns=[2, 136, 155]))  # exponents 3, 4 and 23
    np.testing.assert_allclose(found, (-6 / (2 * np.pi)) ** np.array([3, 4, 23]), rtol=1e-5)
