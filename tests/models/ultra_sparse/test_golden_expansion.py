"""All recipes against the columns that the original code computed."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from sparsejax.models.ultra_sparse import expand_input, network_stats
from tests.models.ultra_sparse import oracle, published
from tests.models.ultra_sparse.published import allowed, worst

TRAINED = {240: "legacy_noise240", 48: "legacy_noise48", 0: "legacy_noise0"}
READMES = ("readme_f32_input", "engines_f32_input")
NEAR_JUMP = 1e-5
HALF_FLOAT32_STEP = 2**-25  # of values up to 1 that were stored as float32

covers = pytest.mark.golden("expand_33")
jitted_or_not = pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])


def expand(x, jitted, **options):
    function = partial(expand_input, **options)
    return (jax.jit(function) if jitted else function)(x)


def away_from_jumps(x, columns=256):
    clear = oracle.jump_distance(x)[:, :columns] >= NEAR_JUMP
    assert clear.mean() > 0.99, "the mask must not hide the columns it is about"
    return clear


@covers
def test_tolerances_are_those_of_the_manifest():
    assert allowed("expand_33", "f32") == [5e-6, 1e-4, NEAR_JUMP]
    assert allowed("expand_33", "f64") == [1e-12]


@covers
@jitted_or_not
@pytest.mark.parametrize("noise", TRAINED)
def test_trained_recipe_in_float32(noise, jitted):
    stored = published.arrays("expand_33")
    found = np.asarray(expand(stored["x_f32"], jitted, noise_columns=noise))
    expected = stored[f"{TRAINED[noise]}_f32"]
    clear = away_from_jumps(stored["x_f32"], 16 + noise)
    assert found.shape == expected.shape == (33, 16 + noise)
    assert np.max(np.abs(found - expected)[clear]) <= allowed("expand_33", "f32")[0]


@covers
@jitted_or_not
@pytest.mark.parametrize("noise", TRAINED)
def test_trained_recipe_in_float64(noise, jitted):
    stored = published.arrays("expand_33")
    with jax.enable_x64(True):
        found = np.asarray(expand(stored["x_f64"], jitted, noise_columns=noise))
    assert found.dtype == np.float64
    clear = away_from_jumps(stored["x_f64"], 16 + noise)
    difference = np.abs(found - stored[f"{TRAINED[noise]}_f64"])
    assert np.max(difference[clear]) <= allowed("expand_33", "f64")[0]


@covers
@jitted_or_not
@pytest.mark.parametrize("name", READMES)
def test_readme_recipe_in_float32(name, jitted):
    stored = published.arrays("expand_33")
    found = expand(stored["x_f32"], jitted, recipe="readme")
    assert worst(found, stored[name]) <= allowed("expand_33", "f32")[1]


@covers
def test_readme_recipe_of_float64_is_stored_as_float32():
    stored = published.arrays("expand_33")
    bound = HALF_FLOAT32_STEP + allowed("expand_33", "f64")[0]
    with jax.enable_x64(True):
        found = expand_input(stored["x_f64"], "readme")
        cast_first = expand_input(stored["x_f64"].astype(np.float32), "readme")
    assert worst(found, stored["readme_f64_input"]) <= bound
    assert cast_first.dtype == np.float32, "the engines cast x, so that their columns are those of float32"
    assert worst(cast_first, stored["engines_f64_input"]) <= allowed("expand_33", "f32")[1]
    assert worst(found, stored["engines_f64_input"]) > 5e-5, "the two differ: spec section 1"


@covers
@jitted_or_not
def test_sine_problem_recipe(jitted):
    stored = published.arrays("expand_33")
    found = expand(stored["x_f32"], jitted, recipe="sine_problem")
    assert worst(found, stored["problem_sine_f32"]) <= allowed("expand_33", "f32")[1]


@covers
def test_constants_of_the_noise_columns():
    stored = published.arrays("expand_33")
    frequency, phase, scale = oracle.trained_draws()
    np.testing.assert_array_equal(frequency, stored["legacy_noise_freqs"])
    np.testing.assert_array_equal(phase, stored["legacy_noise_phases"])
    np.testing.assert_array_equal(scale, stored["legacy_noise_scales"])
    with jax.enable_x64(True):
        x = np.array([0.0])
        assert worst(expand_input(x, "readme")[0, 16:], np.sin(stored["readme_phases"])) <= 1e-12
        assert worst(expand_input(x, "sine_problem")[0, 16:], np.sin(stored["problem_noise_phases"])) <= 1e-12
        small = np.array([1e-3])
        readme = np.sin(1e-3 * stored["readme_freqs"] + stored["readme_phases"])
        problem = np.sin(1e-3 * stored["problem_noise_freqs"] + stored["problem_noise_phases"])
        assert worst(expand_input(small, "readme")[0, 16:], readme) <= 1e-12
        assert worst(expand_input(small, "sine_problem")[0, 16:], problem) <= 1e-12


@pytest.mark.golden("usen_train_small")
def test_library_recipe_is_the_one_of_the_numpy_package():
    stored = published.arrays("usen_train_small")
    x = np.linspace(0, 2 * np.pi, 60).astype(np.float32)
    features = expand_input(x, "library", noise_columns=0)
    # The manifest gives no tolerance: sin and cos of float32 angles up to 50 rad, rounded once.
    assert worst(features, stored["X"]) <= 1e-6
    assert worst(features[:, 0], stored["y"]) <= 1e-6, "feature 0 is the target"


@pytest.mark.golden("usen_train_small")
@pytest.mark.parametrize("net", ["init", "sa_best", "gsa_best"])
def test_nets_of_the_numpy_package_have_the_error_it_reported(net):
    stored, names = published.arrays("usen_train_small"), ("indices", "W1", "b1", "W2", "b2")
    config = published.sparse_config(stored, f"{net}_", 16, names=("W1", "W2"))
    params = published.sparse_params(stored, f"{net}_", names=names)
    (rtol,) = allowed("usen_train_small", "mse")
    found = network_stats(config, params, stored["X"], stored["y"])
    assert found.mse == pytest.approx(float(stored[f"{net}_mse"]), rel=rtol)
