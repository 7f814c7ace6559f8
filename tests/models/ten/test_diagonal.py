"""The inference form of the published cells."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.ten import (
    TemporalEigenstateConfig,
    TemporalEigenstateNetwork,
    diagonalise,
    spectrum,
)

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 40)))


def network(**fields):
    sizes = {"vocab_size": 11, "dim": 16, "n_layers": 2, "num_eigenstates": 6, "max_seq_len": 64}
    config = TemporalEigenstateConfig(**{**sizes, "dropout": 0.0, **fields})
    model = TemporalEigenstateNetwork(config)
    return config, jax.jit(model.init)(jax.random.key(3), TOKENS)["params"]


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, tokens=TOKENS, state=None):
    return TemporalEigenstateNetwork(config).apply({"params": params}, tokens, state)


@pytest.mark.parametrize("variant", ["paper", "seed"])
def test_it_is_the_same_function(variant):
    config, params = network(variant=variant, resonance_epsilon=0.3)
    faster, folded = diagonalise(config, params)
    assert faster.diagonal_blocks == (0, 1)
    whole = logits(config, params).logits
    assert float(jnp.abs(logits(faster, folded).logits - whole).max()) < 1e-5
    first = logits(faster, folded, TOKENS[:, :25])
    second = logits(faster, folded, TOKENS[:, 25:], first.state)
    assert float(jnp.abs(second.logits - whole[:, 25:]).max()) < 1e-5
    found = spectrum(faster, folded)
    assert found.magnitudes.shape == (2, 2, 6) and not found.resonance_norms.any()
    assert faster.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(folded))


def test_an_ill_conditioned_block_keeps_its_scan():
    config, params = network()
    cells = params["layer_1"]["cells"]
    # Equal eigenvalues and a nilpotent mixing: eigenvectors that nearly coincide.
    defective = {
        **cells,
        "decay_logit": jnp.ones_like(cells["decay_logit"]),
        "frequency": jnp.zeros_like(cells["frequency"]),
        "resonance": jnp.broadcast_to(jnp.eye(6, k=1), (2, 6, 6)),
    }
    params = {**params, "layer_1": {**params["layer_1"], "cells": defective}}
    faster, folded = diagonalise(config, params)
    assert faster.diagonal_blocks == (0,)
    assert "cells" in folded["layer_1"] and "diagonal" in folded["layer_0"]
    assert float(jnp.abs(logits(faster, folded).logits - logits(config, params).logits).max()) < 1e-5


def test_what_has_no_feedback_stays():
    config = TemporalEigenstateConfig(vocab_size=11, dim=16, num_eigenstates=6, use_resonance=False)
    assert diagonalise(config, {})[0] == config
    with pytest.raises(ValueError, match="diagonal already"):
        diagonalise(dataclasses.replace(config, variant="modern", n_heads=2), {})
