"""Dense feed-forward parts of other projects: exact without top_k, sparse with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.checkpoint.errors import MissingKeyError
from sparsejax.models.sprout import SproutFFN, convert_dense, convert_dense_layers
from tests.models.sprout import quick

RNG = np.random.default_rng(0)
W1, W2 = (RNG.normal(size=shape).astype(np.float32) for shape in ((12, 6), (6, 12)))
B1, B2 = (RNG.normal(size=size).astype(np.float32) for size in (12, 6))
INPUTS = RNG.normal(size=(5, 6)).astype(np.float32)
DENSE = np.asarray(jax.nn.gelu(INPUTS @ W1.T + B1, approximate=False)) @ W2.T + B2


def outputs(config, params, **options):
    return quick.jit(lambda params: SproutFFN(config).apply({"params": params}, INPUTS, **options))(params)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"router": "low_rank", "router_rank": 2},
        {"router": "block", "block_size": 4, "order": np.arange(12)[::-1]},
    ],
)
def test_without_a_count_it_computes_what_it_did(options):
    config, params = convert_dense(W1, W2, B1, B2, **options)
    np.testing.assert_allclose(outputs(config, params), DENSE, atol=1e-5, rtol=1e-5)
    needed = jax.eval_shape(lambda: SproutFFN(config).init(jax.random.key(0), INPUTS))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, needed)


def test_both_ways_of_storing_matrices():
    config, params = convert_dense(W1.T, W2.T, B1, B2, storage="flax", activation="relu")
    expected = np.maximum(INPUTS @ W1.T + B1, 0) @ W2.T + B2
    np.testing.assert_allclose(outputs(config, params), expected, atol=1e-5, rtol=1e-5)
    assert not convert_dense(W1, W2)[0].use_bias


def test_a_copied_router_takes_the_neurons_with_the_largest_sums():
    config, params = convert_dense(W1, W2)
    sums = INPUTS @ W1.T
    mask = np.argsort(np.argsort(-sums, axis=-1), axis=-1) < 4
    expected = np.asarray(jax.nn.gelu(sums * mask, approximate=False)) @ W2.T
    np.testing.assert_allclose(outputs(config, params, top_k=4), expected, atol=1e-5, rtol=1e-5)


def test_a_moved_neuron_keeps_its_scores():
    order = np.roll(np.arange(12), 5)
    (config, params), (_, moved) = convert_dense(W1, W2, B1, B2), convert_dense(W1, W2, B1, B2, order=order)
    np.testing.assert_array_equal(moved["w_in"], W1[order])
    same = outputs(config, moved, top_k=4), outputs(config, params, top_k=4)
    np.testing.assert_allclose(*same, atol=1e-5, rtol=1e-5)


def test_layers_of_a_bert_by_their_names():
    state = {"bert.embeddings.word_embeddings.weight": np.zeros((3, 6))}
    for layer in (10, 2):
        stem = f"bert.encoder.layer.{layer}"
        state |= {f"{stem}.attention.output.dense.weight": np.zeros((6, 6))}
        state |= {f"{stem}.intermediate.dense.weight": layer * W1, f"{stem}.intermediate.dense.bias": B1}
        state |= {f"{stem}.output.dense.weight": W2, f"{stem}.output.dense.bias": B2}
    layers = convert_dense_layers(state, router="low_rank", router_rank=3)
    assert list(layers) == [2, 10]
    config, params = layers[2]
    assert (config.d_model, config.d_ff, config.use_bias, config.router_rank) == (6, 12, True, 3)
    np.testing.assert_array_equal(params["w_in"], 2 * W1)


@pytest.mark.torch
def test_layers_of_a_torch_encoder_and_of_gpt2():
    import torch

    with torch.no_grad():
        layer = torch.nn.TransformerEncoderLayer(6, 2, 12, activation="gelu", batch_first=True)
        expected = layer.linear2(torch.nn.functional.gelu(layer.linear1(torch.from_numpy(INPUTS))))
    named = {f"encoder.layers.0.{key}": value for key, value in layer.named_parameters()}
    config, params = convert_dense_layers(named)[0]
    np.testing.assert_allclose(outputs(config, params), expected.numpy(), atol=1e-5, rtol=1e-5)
    gpt2 = {"transformer.h.0.mlp.c_fc.weight": W1.T, "transformer.h.0.mlp.c_proj.weight": W2.T}
    gpt2 |= {"transformer.h.0.mlp.c_fc.bias": B1, "transformer.h.0.mlp.c_proj.bias": B2}
    np.testing.assert_allclose(outputs(*convert_dense_layers(gpt2)[0]), DENSE, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((W1, W1), {}, r"shapes \(12, 6\) and \(12, 6\)"),
        ((W1, W2, B2), {}, r"b_in of shape \(6,\) does not fit: \(12,\)"),
        ((W1, W2), {"storage": "jax"}, "storage='jax' is not known"),
        ((W1, W2), {"router": "mlp"}, "'mlp' must be trained"),
        ((W1, W2), {"router": "block", "block_size": 5}, "do not divide into blocks of 5"),
        ((W1, W2), {"order": np.zeros(12, int)}, "no permutation of its 12 neurons"),
        ((W1, W2), {"activation": "swoosh"}, "activation 'swoosh'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        convert_dense(*arguments, **options)


def test_state_dicts_without_such_parts_are_refused():
    with pytest.raises(MissingKeyError, match="no feed-forward part is named like"):
        convert_dense_layers({"head.weight": W1})
    with pytest.raises(MissingKeyError, match="'layers.0.linear2.weight' is missing"):
        convert_dense_layers({"layers.0.linear1.weight": W1})
    twice = {
        f"{stem}.layers.0.{name}.weight": array
        for stem in "ab"
        for name, array in (("linear1", W1), ("linear2", W2))
    }
    with pytest.raises(ValueError, match="two feed-forward parts"):
        convert_dense_layers(twice)
