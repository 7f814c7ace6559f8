"""The published regularisation, against the loss of the published network."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.models.ten import TemporalEigenstateConfig
from sparsejax.models.ten.losses import energy_penalty
from tests import golden


@pytest.mark.golden("src_seed")
def test_published_loss_is_cross_entropy_and_a_hundredth_of_the_penalty():
    arrays = golden.arrays("ten", "src_seed")
    ck = sj.load(golden.path("ten", "src_seed.pt"), variant="seed")
    penalty = float(energy_penalty(ck.config, ck.params))
    for case in ("T1", "T7", "T64", "T129"):
        logits, targets = arrays[f"{case}/logits"], arrays[f"{case}/targets"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(targets))
        np.testing.assert_allclose(entropy.mean() + 0.01 * penalty, arrays[f"{case}/loss"], atol=2e-6)
    assert penalty == pytest.approx(float(arrays["grad_eval/reg_loss"]), rel=1e-6)


def test_penalty_is_the_mean_over_blocks_of_squared_magnitudes():
    config = TemporalEigenstateConfig(n_layers=2, num_cells=1, num_eigenstates=2)
    params = {
        f"layer_{n}": {"cells": {"decay_logit": jnp.array([[0.0, 50.0 * n]]), "frequency": jnp.zeros((1, 2))}}
        for n in range(2)
    }
    expected = 0.99**2 * (3 * 0.25 + 1) / 2
    assert float(energy_penalty(config, params)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="'paper' and 'seed'"):
        energy_penalty(TemporalEigenstateConfig.modern(), {})
    with pytest.raises(ValueError, match="block 1 is diagonal and has no cells"):
        energy_penalty(dataclasses.replace(config, diagonal_blocks=(1,)), params)
