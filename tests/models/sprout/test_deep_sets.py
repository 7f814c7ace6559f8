"""The DeepSets FFN against its definition, neuron by neuron."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.sprout import DeepSets, SproutFFN, SproutFFNConfig
from tests.models.sprout import quick

CONFIG = SproutFFNConfig(d_model=4, d_ff=6, deep_sets=DeepSets(3, 5), dropout=0.0)
INPUTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def params_of(config):
    shapes = jax.eval_shape(lambda: SproutFFN(config).init(jax.random.key(0), INPUTS))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def gelu(values):
    return np.asarray(jax.nn.gelu(values, approximate=False))


def dense(params, values):
    return values @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def norm(params, values):
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / spread * np.asarray(params["scale"]) + np.asarray(params["bias"])


def by_hand(config, params, token, neurons):
    """One token's output, from the concatenation that the published code feeds to phi."""
    parts, vectors = params["deep_sets"], np.asarray(params["deep_sets"]["neuron_vectors"])
    total = np.zeros(config.deep_sets.d_hidden)
    for neuron in neurons:
        activation = gelu(np.asarray(params["w_in"])[neuron] @ token)
        reads = [vectors[neuron], activation[None]]
        if config.deep_sets.use_context:
            reads += [token, vectors[neurons].mean(axis=0)]
        hidden = gelu(norm(parts["phi_norm"], dense(parts["phi_in"], np.concatenate(reads))))
        total += norm(parts["phi_out_norm"], dense(parts["phi_out"], hidden))
    if config.deep_sets.normalize_sum:
        total = norm(parts["rho_norm"], total)
    return dense(parts["rho_out"], gelu(dense(parts["rho_in"], total)))


@pytest.mark.parametrize("sizes", [DeepSets(3, 5), DeepSets(3, 5, use_context=True, normalize_sum=False)])
def test_outputs_are_those_of_the_definition(sizes):
    config = dataclasses.replace(CONFIG, deep_sets=sizes)
    params, top_k = params_of(config), 2
    scores = INPUTS @ np.asarray(params["router"]["kernel"])
    best = np.argsort(-scores, axis=-1)[:, :top_k]

    @quick.jit
    def outputs(params, traced):
        model = SproutFFN(config)
        calls = (top_k, traced, None)
        gated = model.apply({"params": params}, INPUTS, top_k=top_k, straight_through=True)
        return [model.apply({"params": params}, INPUTS, top_k=count) for count in calls], gated

    (gathered, masked, every), gated = outputs(params, jnp.asarray(top_k))
    expected = [by_hand(config, params, token, rows) for token, rows in zip(INPUTS, best, strict=True)]
    for found in (gathered, masked, gated):
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4)
    expected = [by_hand(config, params, token, np.arange(6)) for token in INPUTS]
    np.testing.assert_allclose(every, expected, atol=2e-4, rtol=2e-4)


def test_straight_through_teaches_its_router():
    params = params_of(CONFIG)

    @quick.jit
    @jax.grad
    def gradient(params):
        outputs = SproutFFN(CONFIG).apply({"params": params}, INPUTS, top_k=2, straight_through=True)
        return (outputs * INPUTS).sum()

    assert np.abs(gradient(params)["router"]["kernel"]).max() > 1e-3
