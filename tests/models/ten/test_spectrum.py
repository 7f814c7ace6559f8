"""Eigenvalues, half-lives and resonance against their formulas, and eigenstates over time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.models.ten.config import EigenstateLayer, TemporalEigenstateConfig
from sparsejax.models.ten.model import TemporalEigenstateNetwork
from sparsejax.models.ten.spectrum import spectrum, state_trajectory
from tests import golden

SIZES = {"vocab_size": 32, "dim": 16, "n_layers": 2, "num_eigenstates": 4, "n_heads": 2}
LOGITS = np.array([-3.0, 0.0, 2.0, 7.0], np.float32)
ANGLES = np.array([0.0, 1.0, -0.5, 9.0], np.float32)
SIGMOID = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


def _layer(**more):
    return {"decay_logit": jnp.asarray(LOGITS), "frequency": jnp.asarray(ANGLES), **more}


def test_modern_eigenvalues_and_half_lives():
    config = TemporalEigenstateConfig.modern(**SIZES)
    coupling = jnp.eye(2)[None] + jnp.array([[[0.0, 3.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    found = spectrum(config, {f"layer_{n}": _layer(coupling=coupling) for n in range(2)})
    np.testing.assert_allclose(found.magnitudes, np.tile(SIGMOID, (2, 1)), rtol=1e-6)
    np.testing.assert_array_equal(found.phases, np.tile(ANGLES, (2, 1)))
    np.testing.assert_allclose(found.frequency_spectrum[0], ANGLES / (2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(found.resonance_norms, [[5.0, 1.0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(SIGMOID ** np.asarray(found.half_life[1], np.float64), 0.5, rtol=1e-5)


@pytest.mark.parametrize("use_resonance", [True, False])
def test_published_eigenvalues_are_clipped_and_resonance_is_epsilon(use_resonance):
    config = TemporalEigenstateConfig(
        **{**SIZES, "n_layers": 1}, eigenvalue_clip=0.9, resonance_epsilon=0.25, use_resonance=use_resonance
    )
    cells = {name: jnp.stack([value] * 2) for name, value in _layer().items()}
    if use_resonance:
        cells["resonance"] = jax.random.normal(jax.random.key(0), (2, 4, 4))
    found = spectrum(config, {"layer_0": {"cells": cells}})
    assert found.magnitudes.shape == (1, 2, 4)
    np.testing.assert_allclose(found.magnitudes[0, 1], 0.9 * SIGMOID, rtol=1e-6)
    np.testing.assert_allclose(found.half_life[0, 0], np.log(0.5) / np.log(0.9 * SIGMOID), rtol=1e-5)
    np.testing.assert_allclose(found.resonance_norms, np.full((1, 2), 0.25 * use_resonance), rtol=1e-4)


@pytest.mark.parametrize("clip", [1.0, None])
def test_magnitude_1_is_never_forgotten(clip):
    layer = {"decay_logit": jnp.full(4, 200.0), "frequency": jnp.zeros(4)}
    if clip is None:
        config, params = TemporalEigenstateConfig.modern(**{**SIZES, "n_layers": 1}), {"layer_0": layer}
    else:
        config = TemporalEigenstateConfig(**{**SIZES, "n_layers": 1}, num_cells=1, eigenvalue_clip=clip)
        params = {"layer_0": {"cells": {name: value[None] for name, value in layer.items()}}}
    assert np.isposinf(np.asarray(spectrum(config, params).half_life)).all()


def test_scaled_and_missing_couplings_have_norms():
    fields = {**SIZES, "n_layers": 1}
    scaled = EigenstateLayer(projection="eigenvectors", coupling="scaled")
    layer = _layer(coupling_scale=jnp.float32(-0.5), coupling_mixing=jnp.ones((4, 4)))
    found = spectrum(TemporalEigenstateConfig.modern(**fields, layer=scaled), {"layer_0": layer})
    np.testing.assert_allclose(found.resonance_norms, [[2.0]])
    none = TemporalEigenstateConfig.modern(**fields, layer=EigenstateLayer(coupling="none"))
    np.testing.assert_array_equal(spectrum(none, {"layer_0": _layer()}).resonance_norms, [[0.0]])


def test_second_stack_is_asked_for_by_name():
    config = TemporalEigenstateConfig.modern(
        **SIZES, layer=EigenstateLayer(coupling="none"), long_layer=EigenstateLayer(coupling="none")
    )
    slow = {"decay_logit": jnp.full(4, 5.0), "frequency": jnp.zeros(4)}
    params = {f"layer_{n}": _layer() for n in range(2)} | {f"long_layer_{n}": slow for n in range(2)}
    assert float(spectrum(config, params).magnitudes.min()) < 0.05
    assert float(spectrum(config, params, stack="long").magnitudes.min()) > 0.99
    with pytest.raises(ValueError, match="needs a network with two stacks"):
        spectrum(TemporalEigenstateConfig.modern(**SIZES), params, stack="long")


@pytest.mark.golden("src_seed")
def test_trajectory_of_published_cells():
    ck = sj.load(golden.path("ten", "src_seed.pt"), variant="seed")
    expected = golden.arrays("ten", "src_seed")
    found = state_trajectory(ck.model, ck.params, expected["T7/ids"])
    assert found.shape == (2, 2, 7, 16)
    for block in range(2):
        cells = [np.hypot(*np.moveaxis(expected[f"T7/cellstates{2 * block + c}"], -1, 0)) for c in range(2)]
        np.testing.assert_allclose(found[block], np.concatenate(cells, axis=-1), atol=2e-5)


def test_trajectory_of_one_sequence_has_no_batch_axis_and_moves():
    config = TemporalEigenstateConfig.modern(**SIZES)
    model = TemporalEigenstateNetwork(config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    found = np.asarray(state_trajectory(model, params, [5, 4, 3, 2, 1, 0]))
    assert found.shape == (2, 6, 4)
    assert (found.std(axis=1) > 1e-4).all()
    with pytest.raises(ValueError, match="0 to 31"):
        state_trajectory(model, params, [5, 32])
